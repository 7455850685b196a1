from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.fill import WITHHELD
from cacheproxy.registry.transfer import Route, Source
from cacheproxy.registry.uncached import PATIENCE, Uncached
from tests.registry.conftest import pattern
from tests.registry.fakes import FakeUpstream, breaks_after, lies, refuses

MIB = 1 << 20
SIZE = 4 * MIB


async def read(view: Uncached, span: Span) -> bytes:
    got, at = bytearray(), span.start
    while at < span.stop:
        count = await view.available(at, span)
        part = await view.read(at, min(count, 256 << 10))
        got += part
        at += len(part)
    return bytes(got)


def view_of(upstream: FakeUpstream, nursery: trio.Nursery, held: bytes = b"") -> Uncached:
    def before(offset: int, count: int) -> bytes:
        return held[offset : offset + count]

    route = Route(Source(upstream, "library/debian"))
    return Uncached(upstream.digest, len(upstream.data), route, nursery, before if held else None, len(held))


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream(pattern(SIZE))


async def test_whole_blob_passes_through(upstream: FakeUpstream, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        assert await read(view, Span(0, SIZE, bounded=False)) == upstream.data
        view.close()


async def test_broken_transfer_is_resumed(upstream: FakeUpstream, autojump_clock: MockClock) -> None:
    upstream.faults = [breaks_after(MIB)]
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        assert await read(view, Span(0, SIZE, bounded=False)) == upstream.data
        view.close()
    assert upstream.asked == [(0, None), (MIB, SIZE)]


async def test_wrong_bytes_never_end_well(upstream: FakeUpstream, autojump_clock: MockClock) -> None:
    upstream.faults = [lies]
    at = 0
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        span = Span(0, SIZE, bounded=False)

        async def take_all() -> None:
            nonlocal at
            while True:
                at += len(await view.read(at, await view.available(at, span)))

        with pytest.raises(UpstreamError):
            await take_all()
        view.close()
    assert at == SIZE - WITHHELD


async def test_wrong_bytes_end_the_blob_where_there_is_a_mirror_too(autojump_clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(MIB), mirrors=2, faults=[lies])
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        with trio.fail_after(60), pytest.raises(UpstreamError) as failure:
            await view.available(0, Span(0, MIB, bounded=False))
        view.close()
    assert failure.value.cause is Cause.PROTOCOL


async def test_small_wrong_blob_sends_nothing(autojump_clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(MIB), faults=[lies])
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        with pytest.raises(UpstreamError):
            await view.available(0, Span(0, MIB, bounded=False))
        view.close()


async def test_range_asks_for_the_range_only(upstream: FakeUpstream, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        assert await read(view, Span(100, 300, bounded=True)) == upstream.data[100:300]
        view.close()
    assert upstream.asked == [(100, 300)]


async def test_rest_after_a_failed_disk_is_proven_with_what_was_written(
    upstream: FakeUpstream, autojump_clock: MockClock
) -> None:
    upstream.faults = [lies]
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery, held=upstream.data[: 2 * MIB])
        with pytest.raises(UpstreamError):
            await read(view, Span(2 * MIB, SIZE, bounded=False))
        view.close()


async def test_reader_that_does_not_take_holds_the_upstream_back(
    upstream: FakeUpstream, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        await view.available(0, Span(0, SIZE, bounded=False))
        await trio.sleep(60)
        assert upstream.sent < 2 * MIB
        view.close()


async def test_closing_ends_the_transfer(upstream: FakeUpstream, autojump_clock: MockClock) -> None:
    upstream.rate = 1000
    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            view = view_of(upstream, nursery)
            with trio.move_on_after(30):
                await view.available(0, Span(0, SIZE, bounded=False))
            view.close()


async def test_upstreams_failure_is_raised(upstream: FakeUpstream, autojump_clock: MockClock) -> None:
    upstream.faults = [refuses(Cause.MISSING)]
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        with pytest.raises(UpstreamError):
            await view.available(0, Span(0, SIZE, bounded=False))
        view.close()


async def test_fault_of_ours_ends_no_daemon(
    upstream: FakeUpstream, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(upstream, "open_blob", broken)
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        with pytest.raises(BlobBroken):
            await view.available(0, Span(0, SIZE, bounded=False))
        view.close()


async def stuck(view: Uncached) -> None:
    """Its reader takes nothing, and its connection has waited for that for long."""
    await view.available(0, Span(0, SIZE, bounded=False))
    await trio.sleep(10 * PATIENCE)


async def test_slow_reader_gives_way_to_who_waits_in_line_and_goes_on_later(
    upstream: FakeUpstream, autojump_clock: MockClock
) -> None:
    upstream = FakeUpstream(upstream.data, connections=1)
    span = Span(0, SIZE, bounded=False)
    async with trio.open_nursery() as nursery:
        slow, other = view_of(upstream, nursery), view_of(upstream, nursery)
        await stuck(slow)
        with trio.fail_after(2):
            assert await read(other, span) == upstream.data
        assert await read(slow, span) == upstream.data
        slow.close()
        other.close()
    (_, _, (start, stop)) = upstream.asked
    assert start > MIB
    assert stop == SIZE
    assert upstream.most_at_once == 1


async def test_any_number_of_slow_readers_lets_others_have_their_turn(autojump_clock: MockClock) -> None:
    upstream, span = FakeUpstream(pattern(SIZE), connections=2), Span(0, SIZE, bounded=False)
    async with trio.open_nursery() as nursery:
        views = [view_of(upstream, nursery) for _ in range(10)]
        for view in views:
            nursery.start_soon(view.available, 0, span)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(6 * (PATIENCE + 2)):
            assert await read(view_of(upstream, nursery), span) == upstream.data
        nursery.cancel_scope.cancel()


async def test_reader_keeps_its_connection_while_nobody_waits_in_line(
    upstream: FakeUpstream, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        view = view_of(upstream, nursery)
        await stuck(view)
        assert await read(view, Span(0, SIZE, bounded=False)) == upstream.data
        view.close()
    assert upstream.asked == [(0, None)]


async def test_reader_that_is_as_fast_as_the_upstream_keeps_its_connection(autojump_clock: MockClock) -> None:
    upstream = FakeUpstream(pattern(SIZE), rate=SIZE / 60, connections=1)
    span = Span(0, SIZE, bounded=False)
    async with trio.open_nursery() as nursery:
        view, other = view_of(upstream, nursery), view_of(upstream, nursery)
        nursery.start_soon(read, other, span)
        assert await read(view, span) == upstream.data
        await trio.sleep(120)
        view.close()
        other.close()
    assert len(upstream.asked) == 2


async def test_upstream_without_ranges_is_not_left(autojump_clock: MockClock) -> None:
    """It would send again all that came."""
    upstream, span = FakeUpstream(pattern(SIZE), connections=1, ranges=False), Span(0, SIZE, bounded=False)
    async with trio.open_nursery() as nursery:
        slow, other = view_of(upstream, nursery), view_of(upstream, nursery)
        nursery.start_soon(read, other, span)
        await stuck(slow)
        assert await read(slow, span) == upstream.data
        slow.close()
        await trio.sleep(1)
        other.close()
    assert upstream.asked == [(0, None), (0, None)]
