from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.intervals import Intervals
from cacheproxy.registry import metrics
from cacheproxy.registry.fill import COMMIT_LIMIT, GRACE, WITHHELD, FillRules
from cacheproxy.registry.fills import DISK_THREADS, Fills
from cacheproxy.registry.space import Space
from cacheproxy.registry.transfer import Source
from cacheproxy.store.partial import Partial
from tests.registry.conftest import FixedRoom, Shelf, pattern
from tests.registry.fakes import (
    Answer,
    FakeUpstream,
    breaks_after,
    claims,
    ends_after,
    lies,
    refuses,
    works,
)

MIB = 1 << 20
SIZE = 4 * MIB
SINGLE = FillRules(parallel_from=None)


@asynccontextmanager
async def fills(shelf: Shelf, rules: FillRules = SINGLE, budget: int | None = None) -> AsyncIterator[Fills]:
    async with trio.open_nursery() as nursery:
        space = Space(budget, lambda _: 0, lambda: (1 << 40, 1 << 40), stored=0, partials=())
        yield Fills(nursery, shelf, rules, space, FixedRoom(space))
        nursery.cancel_scope.cancel()


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream(pattern(SIZE))


async def read(view: BlobView, start: int = 0, stop: int | None = None, *, bounded: bool = False) -> bytes:
    """What the edge does: wait, then send what is there."""
    import os

    span = Span(start, view.size if stop is None else stop, bounded=bounded)
    got, at = bytearray(), start
    while at < span.stop:
        count = await view.available(at, span)
        fd = view.fileno()
        part = os.pread(fd, count, at) if fd is not None else await view.read(at, count)
        got += part
        at += len(part)
    return bytes(got)


async def pull(all_fills: Fills, upstream: FakeUpstream) -> bytes:
    view, _ = await all_fills.join(upstream.digest, len(upstream.data), Source(upstream, "library/debian"))
    try:
        return await read(view)
    finally:
        view.close()


async def settled(shelf: Shelf, upstream: FakeUpstream) -> None:
    """The fill has committed what it brought."""
    with trio.fail_after(600):
        while upstream.digest not in shelf.kept:
            await trio.sleep(0.1)


async def test_blob_is_streamed_and_kept(shelf: Shelf, upstream: FakeUpstream, clock: MockClock) -> None:
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
        await settled(shelf, upstream)
    assert shelf.kept[upstream.digest] == upstream.data


async def test_many_readers_share_one_transfer(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.rate = MIB
    async with fills(shelf) as all_fills, trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def one(after: float) -> None:
            await trio.sleep(after)
            got.append(await pull(all_fills, upstream))

        for n in range(32):
            nursery.start_soon(one, n * 0.1)
    assert got == [upstream.data] * 32
    assert upstream.asked == [(0, None)]


async def test_second_reader_is_told_that_it_joined(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    async with fills(shelf) as all_fills:
        source = Source(upstream, "library/debian")
        first, outcome = await all_fills.join(upstream.digest, SIZE, source)
        second, joined = await all_fills.join(upstream.digest, SIZE, source)
        first.close()
        second.close()
    assert (outcome, joined) == ("miss", "coalesced")


async def test_tail_waits_for_the_proof(shelf: Shelf, upstream: FakeUpstream, clock: MockClock) -> None:
    upstream.faults = [lies]
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        span = Span(0, SIZE, bounded=False)
        at = 0

        async def take_all() -> None:
            nonlocal at
            while True:
                at += await view.available(at, span)

        with pytest.raises(UpstreamError) as failure:
            await take_all()
        view.close()
    assert at == SIZE - WITHHELD
    assert failure.value.cause is Cause.PROTOCOL
    assert shelf.kept == {}


async def test_small_blob_waits_for_the_proof_as_a_whole(shelf: Shelf, clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(MIB), faults=[lies])
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, MIB, Source(upstream, "library/debian"))
        with pytest.raises(UpstreamError):
            await view.available(0, Span(0, MIB, bounded=False))
        view.close()


async def test_wrong_bytes_are_not_gone_on_from(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [lies]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError):
            await pull(all_fills, upstream)
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.asked == [(0, None), (0, None)]


async def test_bounded_reader_gets_the_footer_first(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        assert await read(view, SIZE - 100, SIZE, bounded=True) == upstream.data[-100:]
        view.close()
    assert upstream.asked == [(SIZE - 100, SIZE)]


async def test_bounded_readers_fetch_only_what_they_ask_for(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    async with fills(shelf) as all_fills:
        for start in (0, 1 * MIB, 3 * MIB):
            view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
            assert await read(view, start, start + 10, bounded=True) == upstream.data[start : start + 10]
            view.close()
    assert upstream.sent == 3 * (256 << 10)


async def test_whole_reader_after_ranged_ones_fetches_only_the_rest(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        await read(view, MIB, 2 * MIB, bounded=True)
        assert await pull(all_fills, upstream) == upstream.data
        view.close()
        await settled(shelf, upstream)
    assert upstream.sent == SIZE


async def test_large_blob_comes_in_ranged_transfers(shelf: Shelf, clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(SIZE), rate=MIB)
    rules = FillRules(parallel_from=SIZE, ranges=4, piece=MIB)
    async with fills(shelf, rules) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert sorted(upstream.asked) == [(at, at + MIB) for at in range(0, SIZE, MIB)]
    assert 2 <= upstream.most_at_once <= rules.ranges
    assert upstream.sent == SIZE


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.SERVER, Cause.CONNECT])
async def test_upstream_that_allows_fewer_transfers_gets_fewer(
    shelf: Shelf, clock: MockClock, cause: Cause
) -> None:
    upstream = FakeUpstream(pattern(2 * SIZE), rate=MIB / 8)

    def one_too_many(answer: Answer) -> None:
        if upstream.at_once >= 2:
            refuses(cause)(answer)

    upstream.faults = [one_too_many] * 1000
    rules = FillRules(parallel_from=SIZE, ranges=4, piece=MIB)
    async with fills(shelf, rules) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.most_at_once == 2
    assert upstream.sent == 2 * SIZE
    refused = sum(answer.error_at_once is not None for answer in upstream.answers)
    assert refused <= 6


async def test_upstream_that_ends_all_transfers_ends_the_fill(shelf: Shelf, clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(SIZE), rate=MIB)
    upstream.faults = [*[breaks_after(MIB // 2)] * 4, *[refuses(Cause.CONNECT)] * 100]
    rules = FillRules(parallel_from=SIZE, ranges=4, piece=MIB)
    async with fills(shelf, rules) as all_fills:
        with pytest.raises(UpstreamError) as failure:
            await pull(all_fills, upstream)
    assert failure.value.cause is Cause.CONNECT


async def test_upstream_without_ranges_is_asked_once(shelf: Shelf, clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(SIZE), ranges=False)
    rules = FillRules(parallel_from=SIZE, ranges=4, piece=MIB)
    async with fills(shelf, rules) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert len(upstream.answers) == 1


async def test_footer_of_an_upstream_without_ranges_waits_for_the_whole(
    shelf: Shelf, clock: MockClock
) -> None:
    upstream = FakeUpstream(pattern(SIZE), ranges=False)
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        assert await read(view, SIZE - 10, SIZE, bounded=True) == upstream.data[-10:]
        view.close()
    assert upstream.sent == SIZE


async def test_what_an_upstream_without_ranges_sent_for_a_footer_is_progress(
    shelf: Shelf, clock: MockClock
) -> None:
    upstream = FakeUpstream(pattern(SIZE), ranges=False)
    upstream.faults = [breaks_after(MIB), refuses(Cause.THROTTLED, retry_after=5)]
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        assert await read(view, SIZE - 10, SIZE, bounded=True) == upstream.data[-10:]
        view.close()


@pytest.mark.parametrize("fault", [breaks_after(MIB), ends_after(MIB), breaks_after(MIB, Cause.TIMEOUT)])
async def test_broken_transfer_is_resumed_where_it_broke(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, fault: object
) -> None:
    upstream.faults = [fault]  # type: ignore[list-item]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.asked == [(0, None), (MIB, SIZE)]
    assert upstream.sent == SIZE


async def test_resumption_names_the_etag_only_where_it_came_from(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.mirrors = 2
    upstream.faults = [breaks_after(MIB), breaks_after(MIB), works]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert [(a.endpoint, a.etag_asked) for a in upstream.answers] == [(0, None), (1, None), (0, '"0"')]


async def test_progress_never_runs_out_of_resumptions(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [breaks_after(128 << 10) for _ in range(31)]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.sent == SIZE


async def test_drip_is_no_progress(shelf: Shelf, upstream: FakeUpstream, clock: MockClock) -> None:
    upstream.faults = [breaks_after(10, Cause.TIMEOUT)] * 3
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError) as failure:
            await pull(all_fills, upstream)
        assert await pull(all_fills, upstream) == upstream.data
    assert failure.value.cause is Cause.TIMEOUT
    assert upstream.asked == [(0, None), (10, SIZE), (20, SIZE), (30, SIZE)]


async def test_upstream_that_never_sends_ends_the_fill(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [refuses(Cause.CONNECT)] * 3
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError):
            await pull(all_fills, upstream)
        assert await pull(all_fills, upstream) == upstream.data


async def test_upstream_that_restarts_under_a_transfer_is_waited_for(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    def down(answer: Answer) -> None:
        if trio.current_time() < began + 2:
            refuses(Cause.CONNECT)(answer)

    began = trio.current_time()
    upstream.faults = [breaks_after(MIB), *[down] * 2]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data


async def test_missing_blob_is_not_asked_for_again(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [refuses(Cause.MISSING)]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError) as failure:
            await pull(all_fills, upstream)
    assert failure.value.cause is Cause.MISSING
    assert len(upstream.answers) == 1


async def test_mirror_without_the_blob_is_left_out(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.mirrors = 2
    upstream.faults = [refuses(Cause.MISSING)]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert [answer.endpoint for answer in upstream.answers] == [0, 1]


async def test_throttled_before_the_first_byte_is_told_at_once(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [refuses(Cause.THROTTLED, retry_after=60)]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError) as failure:
            await pull(all_fills, upstream)
    assert failure.value.retry_after == 60


async def test_throttled_in_the_middle_is_waited_out(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [breaks_after(MIB), refuses(Cause.THROTTLED, retry_after=20)]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data


async def test_length_that_is_not_the_manifests_is_refused(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [claims(SIZE + 1)]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError) as failure:
            await pull(all_fills, upstream)
    assert failure.value.cause is Cause.PROTOCOL


async def test_fill_past_its_share_outlives_its_readers(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.rate = MIB
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        await read(view, 0, 3 * MIB)
        view.close()
        await settled(shelf, upstream)
    assert upstream.sent == SIZE


async def test_fill_below_its_share_ends_after_a_grace(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.rate = MIB / 16
    async with fills(shelf, FillRules(parallel_from=None, finish_share=math.inf)) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        await view.available(0, Span(0, SIZE, bounded=False))
        view.close()
        await trio.sleep(GRACE + 2)
        assert all_fills.held(upstream.digest) is None
        sent = upstream.sent
        upstream.rate = None
        assert await pull(all_fills, upstream) == upstream.data
    assert 0 < sent < SIZE
    assert upstream.sent == SIZE


async def test_fill_goes_on_after_a_restart(shelf: Shelf, upstream: FakeUpstream, clock: MockClock) -> None:
    upstream.rate = MIB
    with trio.move_on_after(2.2):
        async with fills(shelf) as all_fills:
            await pull(all_fills, upstream)
    upstream.rate = None
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.sent == SIZE


async def test_after_a_restart_the_etag_is_named_to_who_gave_it_only(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.rate = MIB
    with trio.move_on_after(2.2):
        async with fills(shelf) as all_fills:
            await pull(all_fills, upstream)
    upstream.rate, upstream.mirrors, upstream.faults = None, 2, [breaks_after(MIB)]
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    told = [(answer.endpoint, answer.etag_asked) for answer in upstream.answers]
    assert told == [(0, None), (0, '"0"'), (1, None)]


@pytest.mark.parametrize("after", [0, 2 * MIB])
async def test_full_disk_goes_on_uncached(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Partial.write

    def write(self: Partial, offset: int, chunks: list[bytes]) -> None:
        if offset + sum(map(len, chunks)) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, offset, chunks)

    monkeypatch.setattr(Partial, "write", write)
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert shelf.kept == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_only_want_of_room_asks_for_room(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, number: int
) -> None:
    shelf.keeping = OSError(number, "not kept")
    async with trio.open_nursery() as nursery:
        space = Space(None, lambda _: 0, lambda: (1 << 40, 1 << 40), stored=0, partials=())
        room = FixedRoom(space)
        all_fills = Fills(nursery, shelf, SINGLE, space, room)
        assert await pull(all_fills, upstream) == upstream.data
        while all_fills.held(upstream.digest) is not None:
            await trio.sleep(0.1)
    assert room.starved == ([] if number == errno.EIO else [SIZE])


async def test_readers_that_waited_for_room_share_one_fill(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    class SlowRoom(FixedRoom):
        async def reserve(self, digest: Digest, size: int) -> bool:
            await trio.sleep(1)
            return await super().reserve(digest, size)

    async with trio.open_nursery() as nursery:
        space = Space(SIZE, lambda _: 0, lambda: (1 << 40, 1 << 40), stored=0, partials=())
        all_fills = Fills(nursery, shelf, SINGLE, space, SlowRoom(space))
        async with trio.open_nursery() as clients:
            for _ in range(8):
                clients.start_soon(pull, all_fills, upstream)
    assert upstream.asked == [(0, None)]


async def test_full_disk_stops_no_reader_of_the_rest(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is before its range never came: there is nothing to prove the end with."""
    real = Partial.write

    def write(self: Partial, offset: int, chunks: list[bytes]) -> None:
        if offset + sum(map(len, chunks)) > 3 * MIB:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, offset, chunks)

    monkeypatch.setattr(Partial, "write", write)
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        assert await read(view, 2 * MIB) == upstream.data[2 * MIB :]
        view.close()


async def test_folder_that_takes_no_file_goes_on_uncached(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    shelf.opening = OSError(errno.EROFS, "Read-only file system")
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data


async def test_blob_that_cannot_be_kept_is_served_all_the_same(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, tmp_path: Path
) -> None:
    shelf.keeping = OSError(errno.ENOSPC, "No space left on device")
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
        while all_fills.held(upstream.digest) is not None:
            await trio.sleep(0.1)
    assert list((tmp_path / "blobs" / "partial").iterdir()) == []


async def test_over_the_budget_is_served_uncached(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    async with fills(shelf, budget=SIZE - 1) as all_fills:
        view, outcome = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        assert await read(view) == upstream.data
        view.close()
    assert outcome == "bypass"


async def test_two_downloads_are_not_promised_the_same_room(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    other = FakeUpstream(pattern(SIZE, 2))
    async with trio.open_nursery() as nursery:
        space = Space(None, lambda _: 0, lambda: (2 * SIZE - 1, 1 << 40), stored=0, partials=())
        all_fills = Fills(nursery, shelf, SINGLE, space, FixedRoom(space))
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        second, outcome = await all_fills.join(other.digest, SIZE, Source(other, "library/debian"))
        assert outcome == "bypass"
        assert await read(view) == upstream.data
        await settled(shelf, upstream)
        third, outcome = await all_fills.join(other.digest, SIZE, Source(other, "library/debian"))
        assert outcome == "miss", "the disk says what is left"
        for opened in (view, second, third):
            opened.close()
        nursery.cancel_scope.cancel()


async def test_empty_blob_needs_no_upstream(shelf: Shelf, clock: MockClock) -> None:
    upstream = FakeUpstream(b"")
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == b""
        await settled(shelf, upstream)
    assert upstream.answers == []


async def test_next_fill_goes_on_while_the_failed_one_is_still_read(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.faults = [breaks_after(2 * MIB), *[refuses(Cause.CONNECT)] * 3]
    async with fills(shelf) as all_fills:
        slow, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        await slow.available(0, Span(0, SIZE, bounded=False))
        while all_fills.held(upstream.digest) is not None:
            await trio.sleep(0.1)
        assert await pull(all_fills, upstream) == upstream.data
        assert await read(slow, 0, MIB, bounded=True) == upstream.data[:MIB]
        slow.close()
    assert upstream.sent == SIZE


async def test_fault_of_ours_ends_neither_the_daemon_nor_the_pull(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(shelf, "partial", broken)
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data


async def test_reader_that_leaves_does_not_close_the_file_under_its_checkpoint(
    shelf: Shelf, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checkpoint(self: Partial, intervals: list[tuple[int, int]]) -> None:
        time.sleep(0.05)  # the reader hears of the failure, and is gone
        real(self, intervals)

    real = Partial.checkpoint
    monkeypatch.setattr(Partial, "checkpoint", checkpoint)
    upstream.faults = [breaks_after(2 * MIB), refuses(Cause.MISSING)]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError):
            await pull(all_fills, upstream)
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.sent == SIZE


async def test_a_lie_about_the_size_stops_nobody_else(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.rate = MIB
    async with fills(shelf) as all_fills:
        source = Source(upstream, "library/debian")
        liar, _ = await all_fills.join(upstream.digest, SIZE + 1, source)
        honest, outcome = await all_fills.join(upstream.digest, SIZE, source)
        assert await read(honest) == upstream.data
        with pytest.raises(UpstreamError):
            await read(liar)
        liar.close()
        honest.close()
        assert await pull(all_fills, upstream) == upstream.data
    assert outcome == "bypass"


async def test_reader_that_comes_as_a_fill_is_given_up_is_served(
    shelf: Shelf, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_write(self: Partial, offset: int, chunks: list[bytes]) -> None:
        real(self, offset, chunks)
        if offset:
            time.sleep(0.3)

    real = Partial.write
    monkeypatch.setattr(Partial, "write", slow_write)
    monkeypatch.setattr("cacheproxy.registry.fill.GRACE", 0.05)
    upstream.rate = 4 * MIB
    async with fills(shelf) as all_fills:
        view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
        await view.available(0, Span(0, SIZE, bounded=False))
        view.close()
        await trio.sleep(0.15)  # given up, while a thread still writes
        upstream.rate = None
        monkeypatch.setattr(Partial, "write", real)
        assert await pull(all_fills, upstream) == upstream.data


async def test_what_waits_for_a_thread_at_a_shutdown_is_left_too(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.rate = MIB
    busy = [object() for _ in range(DISK_THREADS)]
    with trio.CancelScope() as daemon:
        async with fills(shelf) as all_fills:
            view, _ = await all_fills.join(upstream.digest, SIZE, Source(upstream, "library/debian"))
            await read(view, 0, MIB)
            for thread in busy:
                await all_fills._disk.acquire_on_behalf_of(thread)
            for _ in range(8):
                await wait_all_tasks_blocked()
                clock.jump(1 / 16)
            daemon.cancel()
            for thread in busy:
                all_fills._disk.release_on_behalf_of(thread)
    upstream.rate = None
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
    assert upstream.sent == SIZE


async def test_what_is_held_is_looked_through_by_the_loop_alone(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(self: Intervals) -> Iterator[tuple[int, int]]:
        here.add(threading.current_thread())
        return real(self)

    here, real = set[threading.Thread](), Intervals.__iter__
    monkeypatch.setattr(Intervals, "__iter__", runs)
    monkeypatch.setattr("cacheproxy.registry.fillfile.CHECKPOINT_BYTES", MIB)
    upstream.rate = MIB / 2
    with trio.move_on_after(7):
        async with fills(shelf) as all_fills:
            await pull(all_fills, upstream)
    assert here == {threading.current_thread()}


async def test_commit_that_hangs_is_given_up(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: Partial) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(shelf, "keep", hang)
    unkept = metrics.FILLS.labels("unkept")
    before = unkept._value.get()
    async with fills(shelf) as all_fills:
        assert await pull(all_fills, upstream) == upstream.data
        with trio.fail_after(COMMIT_LIMIT + 10):
            while all_fills.held(upstream.digest) is not None:
                await trio.sleep(1)
    assert unkept._value.get() == before + 1


async def test_fault_of_ours_at_the_end_of_a_fill_ends_no_daemon(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Partial, "leave", broken)
    upstream.faults = [breaks_after(2 * MIB, Cause.PROTOCOL)]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError):
            await pull(all_fills, upstream)
        assert await pull(all_fills, upstream) == upstream.data


async def test_endpoint_that_sent_wrong_bytes_is_asked_last(
    shelf: Shelf, upstream: FakeUpstream, clock: MockClock
) -> None:
    upstream.mirrors = 2
    upstream.faults = [lies]
    async with fills(shelf) as all_fills:
        with pytest.raises(UpstreamError):
            await pull(all_fills, upstream)
        assert await pull(all_fills, upstream) == upstream.data
    assert [answer.endpoint for answer in upstream.answers] == [0, 1]
