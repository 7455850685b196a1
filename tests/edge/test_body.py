from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from cacheproxy.core.blob import Span
from cacheproxy.edge import body
from cacheproxy.edge.body import SourceFailed
from cacheproxy.edge.message import BlobBody
from cacheproxy.edge.wire import STEP, ClientGone, Phase, Wire
from tests.edge.harness import FileView, Growing, View

DATA = bytes(range(251)) * 8_000  # about 2 MiB: several steps


class Sink:
    """A wire, and what comes out of its other end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.wire = Wire(ours, 0.0)
        self.theirs = trio.socket.from_stdlib_socket(theirs)
        self.got = b""

    async def collect(self) -> None:
        while data := await self.theirs.recv(1 << 20):
            self.got += data

    async def send(self, start: bytes, blob: BlobBody) -> bytes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.collect)
            await body.send(self.wire, start, blob)
            self.wire.sock.shutdown(socket.SHUT_WR)
        return self.got


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    sink = Sink()
    yield sink
    sink.wire.sock.close()
    sink.theirs.close()


def whole(view: View) -> BlobBody:
    return BlobBody(view, (Span(0, view.size, False),), view.size)


async def test_a_file(sink: Sink, file: int) -> None:
    assert await sink.send(b"head", whole(FileView(DATA, file))) == b"head" + DATA


async def test_memory(sink: Sink) -> None:
    assert await sink.send(b"head", whole(View(DATA))) == b"head" + DATA


async def test_an_empty_blob(sink: Sink, file: int) -> None:
    assert await sink.send(b"head", whole(FileView(b"", file))) == b"head"


async def test_parts(sink: Sink, file: int) -> None:
    parts = (b"--x\r\n", Span(10, 20, True), b"\r\n--x\r\n", Span(2_000_000, 2_000_100, True), b"\r\n--x--")
    length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
    got = await sink.send(b"head", BlobBody(FileView(DATA, file), parts, length))
    assert got == b"head--x\r\n" + DATA[10:20] + b"\r\n--x\r\n" + DATA[2_000_000:2_000_100] + b"\r\n--x--"


async def test_parts_that_do_not_add_up_are_not_begun(sink: Sink) -> None:
    with pytest.raises(SourceFailed):
        await body.send(sink.wire, b"head", BlobBody(View(DATA), (Span(0, 10, True),), 11))
    assert sink.wire.sent == 0


async def test_the_head_waits_for_the_first_bytes(sink: Sink) -> None:
    view = Growing(b"0123456789")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(body.send, sink.wire, b"head", whole(view))
        await view.waited.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert sink.wire.sent == 0
        assert sink.wire.phase is Phase.WAITING
        view.arrive(4)
        await trio.testing.wait_all_tasks_blocked()
        assert await sink.theirs.recv(100) == b"head0123"
        view.arrive(10)
    assert await sink.theirs.recv(100) == b"456789"


async def test_a_blob_may_lose_its_file_on_the_way(sink: Sink, file: int) -> None:
    class Moving(FileView):
        async def available(self, offset: int, span: Span) -> int:
            await trio.lowlevel.checkpoint()
            return 7

        def fileno(self) -> int | None:
            return None if self.reads else super().fileno()

        reads = 0

        async def read(self, offset: int, count: int) -> bytes:
            return await super().read(offset, count)

    view = Moving(b"0123456789" * 3, file)
    original = view.available

    async def available(offset: int, span: Span) -> int:
        view.reads = offset // 14
        return await original(offset, span)

    view.available = available  # type: ignore[method-assign]
    assert await sink.send(b"", whole(view)) == view.data


async def test_a_source_that_fails_before_the_first_byte_sends_no_head(sink: Sink) -> None:
    view = Growing(DATA)
    view.fail(RuntimeError("upstream"))
    with pytest.raises(SourceFailed) as caught:
        await body.send(sink.wire, b"head", whole(view))
    assert str(caught.value.__cause__) == "upstream"
    assert sink.wire.sent == 0


async def test_a_file_that_is_shorter_than_promised_fails(sink: Sink, file: int) -> None:
    view = FileView(b"0123456789", file)
    os.ftruncate(file, 5)
    with pytest.raises(SourceFailed, match="ends at 5"):
        await body.send(sink.wire, b"", whole(view))


async def test_a_file_that_cannot_be_read_fails(sink: Sink, file: int) -> None:
    view = FileView(b"0123456789", file)
    view.file = 10_000
    with pytest.raises(SourceFailed):
        await body.send(sink.wire, b"", whole(view))


@pytest.mark.parametrize("answer", [b"", b"too many bytes for what was asked"])
async def test_a_read_of_the_wrong_length_fails(answer: bytes, sink: Sink) -> None:
    class Wrong(View):
        async def read(self, offset: int, count: int) -> bytes:
            return answer

    with pytest.raises(SourceFailed):
        await body.send(sink.wire, b"", whole(Wrong(b"0123456789")))


async def test_a_source_that_has_no_bytes_fails_instead_of_going_round(sink: Sink) -> None:
    class Nothing(View):
        async def available(self, offset: int, span: Span) -> int:
            return 0

    with pytest.raises(SourceFailed):
        await body.send(sink.wire, b"", whole(Nothing(b"0123456789")))


async def test_a_client_that_left_is_not_the_sources_fault(sink: Sink, file: int) -> None:
    sink.theirs.close()
    with pytest.raises(ClientGone):
        await body.send(sink.wire, b"head", whole(FileView(DATA, file)))


async def test_bytes_that_are_not_in_memory_are_read_ahead_in_a_thread(
    sink: Sink, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    real = trio.to_thread.run_sync

    async def run_sync(sync_fn: object, *args: object, **options: object) -> object:
        threads.append(args)
        return await real(sync_fn, *args, **options)  # type: ignore[arg-type]

    def preadv(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    monkeypatch.setattr(os, "preadv", preadv)
    data = DATA[: STEP + 10]
    assert await sink.send(b"", whole(FileView(data, file))) == data
    assert (file, STEP, 0) in threads


async def test_a_fast_reader_lets_others_run(sink: Sink, file: int) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await sink.send(b"", whole(View(DATA)))
        nursery.cancel_scope.cancel()
    assert turns >= len(DATA) // STEP
