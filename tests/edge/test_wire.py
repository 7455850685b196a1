from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from cacheproxy.edge.wire import ClientGone, Phase, Wire


class Pair:
    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        ours.setblocking(False)
        theirs.setblocking(False)
        self.wire = Wire(ours, 0.0)
        self.theirs = trio.socket.from_stdlib_socket(theirs)

    async def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += await self.theirs.recv(count - len(data))
        return data


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    pair = Pair(ours, theirs)
    yield pair
    pair.wire.sock.close()
    pair.theirs.close()


async def test_recv_waits_for_bytes_and_counts_them(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert await pair.wire.recv() == b"hello"

        await trio.testing.wait_all_tasks_blocked()
        await pair.theirs.send(b"hello")
    assert pair.wire.received == 5


async def test_recv_is_empty_at_the_clients_end(pair: Pair) -> None:
    pair.theirs.shutdown(socket.SHUT_WR)
    assert await pair.wire.recv() == b""


async def test_a_small_send_never_waits(pair: Pair) -> None:
    with trio.testing.assert_no_checkpoints():
        await pair.wire.send(b"hello")
    assert await pair.take(5) == b"hello"
    assert pair.wire.phase is Phase.HEADER


async def test_a_send_that_the_client_does_not_take_is_measured(pair: Pair) -> None:
    data = bytes(range(256)) * 65_536
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.wire.send, data)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert pair.wire.phase is Phase.SENDING
        assert 0 <= pair.wire.through() < pair.wire.sent < len(data)
        assert await pair.take(len(data)) == data
    assert pair.wire.sent == len(data)


async def test_what_the_client_has_taken_has_got_through(pair: Pair) -> None:
    await pair.wire.send(b"hello")
    await pair.take(5)
    assert pair.wire.through() == 5


async def test_the_phase_goes_on_with_its_window(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    pair.wire.measure(Phase.SENDING)
    began = pair.wire.mark_at
    await trio.sleep(1)
    pair.wire.measure(Phase.SENDING)
    assert pair.wire.mark_at == began
    pair.wire.wait()
    pair.wire.measure(Phase.SENDING)
    assert pair.wire.mark_at == began + 1


async def test_a_pause_is_not_in_the_window(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    pair.wire.measure(Phase.RECEIVING)
    began = pair.wire.mark_at
    await trio.sleep(5)
    pair.wire.pause()
    assert pair.wire.phase is Phase.WAITING
    await trio.sleep(60)
    pair.wire.pause()
    await trio.sleep(40)
    pair.wire.measure(Phase.RECEIVING)
    assert pair.wire.mark_at == began + 100


async def test_the_next_turn_begins_its_own_window(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    pair.wire.measure(Phase.RECEIVING)
    pair.wire.pause()
    pair.wire.begin_turn()
    await trio.sleep(5)
    pair.wire.measure(Phase.RECEIVING)
    assert pair.wire.mark_at == trio.current_time()


async def test_the_account_of_an_answer_begins_after_its_head(pair: Pair) -> None:
    await pair.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    pair.wire.begin_turn()
    assert pair.wire.first_sent is None
    pair.wire.begin_answer(3)
    await pair.wire.send(b"abcde")
    assert pair.wire.first_sent is not None
    assert pair.wire.body_sent == 2


async def test_a_client_that_reset_is_gone(pair: Pair) -> None:
    pair.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.theirs.close()
    with pytest.raises(ClientGone):
        await pair.wire.recv()
    with pytest.raises(ClientGone):
        await pair.wire.send(b"hello")


async def test_sendfile(pair: Pair, file: int) -> None:
    os.pwrite(file, b"0123456789", 0)
    assert await pair.wire.sendfile(file, 3, 4) == 4
    assert await pair.take(4) == b"3456"
    assert await pair.wire.sendfile(file, 10, 4) == 0


async def test_the_files_own_faults_are_not_the_clients(pair: Pair) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        await pair.wire.sendfile(10_000, 0, 4)


async def test_close_with_reset_is_no_clean_end(pair: Pair) -> None:
    pair.wire.reset = True
    pair.wire.close()
    with pytest.raises(ConnectionResetError):
        await pair.theirs.recv(1)


async def test_a_lingering_end_waits_for_the_client(pair: Pair) -> None:
    await pair.theirs.send(b"more than was read")
    await pair.wire.send(b"bye")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.wire.linger, 2.0)
        assert await pair.take(3) == b"bye"
        assert await pair.theirs.recv(1) == b""
        assert pair.wire.phase is Phase.LINGERING
        pair.theirs.shutdown(socket.SHUT_WR)


async def test_a_last_word_is_said_or_not(pair: Pair) -> None:
    assert pair.wire.send_now(b"bye")
    pair.wire.close()
    assert not pair.wire.send_now(b"bye")
