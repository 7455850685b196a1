from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import BlobMissing, StoreUnreachable
from cacheproxy.store.objectblob import FIRST_STEP, LAST_STEP, LEAST_STEP, MEMORY, ObjectBlob

SIZE = 3 * LAST_STEP + 7
DATA = bytes(range(251)) * (SIZE // 251 + 1)
WHOLE = Span(0, SIZE, bounded=False)


class Store:
    """Gives the bytes of DATA; notes what it was asked for; fails where it was told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.failures: dict[int, Exception] = {}
        """By the offset that is asked for; once each."""
        self.open = threading.Event()
        self.open.set()

    def read(self, start: int, stop: int) -> memoryview:
        self.asked.append((start, stop))
        assert self.open.wait(10)
        if start in self.failures:
            raise self.failures.pop(start)
        return memoryview(DATA)[start:stop]


@asynccontextmanager
async def viewed(store: Store) -> AsyncIterator[ObjectBlob]:
    async with trio.open_nursery() as nursery:
        view = ObjectBlob(Digest.of(b"any"), SIZE, store.read, nursery, trio.CapacityLimiter(4), set())
        yield view
        view.close()
        store.open.set()


async def sent(view: ObjectBlob, span: Span, piece: int = 256 << 10) -> bytes:
    got = b""
    while len(got) < span.length:
        at = span.start + len(got)
        count = await view.available(at, span)
        got += await view.read(at, min(count, piece))
    return got


async def test_whole_blob_comes_in_steps_that_grow() -> None:
    store = Store()
    async with viewed(store) as view:
        assert await sent(view, WHOLE) == DATA[:SIZE]
    lengths = [stop - start for start, stop in store.asked]
    assert lengths[:4] == [FIRST_STEP, 2 * FIRST_STEP, 4 * FIRST_STEP, LAST_STEP]
    assert max(lengths) == LAST_STEP
    assert sum(lengths) == SIZE


async def test_next_step_is_asked_for_while_this_one_is_sent() -> None:
    store = Store()
    async with viewed(store) as view:
        await view.available(0, WHOLE)
        with trio.fail_after(5):
            while len(store.asked) < 2:
                await trio.sleep(0.001)
        assert store.asked == [(0, FIRST_STEP), (FIRST_STEP, 3 * FIRST_STEP)]


async def test_no_more_than_one_step_is_read_ahead() -> None:
    store = Store()
    async with viewed(store) as view:
        for offset in range(0, FIRST_STEP, FIRST_STEP // 8):
            await view.available(offset, WHOLE)
            await trio.sleep(0.002)
        assert len(store.asked) == 2


async def test_small_range_asks_for_no_more() -> None:
    store = Store()
    async with viewed(store) as view:
        assert await sent(view, Span(1000, 1010, bounded=True)) == DATA[1000:1010]
    assert store.asked == [(1000, 1010)]


async def test_many_readers_share_the_memory_by_smaller_steps() -> None:
    store = Store()
    async with viewed(store) as view:
        others = view._all_open
        for _ in range(MEMORY // (2 * LEAST_STEP)):
            ObjectBlob(Digest.of(b"any"), SIZE, store.read, view._nursery, view._threads, others)
        await view.available(0, WHOLE)
        for other in list(others - {view}):
            other.close()
        assert others == {view}
    assert store.asked[0] == (0, LEAST_STEP)


async def test_parts_of_one_answer_may_go_back() -> None:
    store = Store()
    async with viewed(store) as view:
        for span in (Span(5000, 6000, True), Span(0, 100, True), Span(SIZE - 3, SIZE, True)):
            assert await sent(view, span) == DATA[span.start : span.stop]
    assert store.asked == [(5000, 6000), (0, 100), (SIZE - 3, SIZE)]


@pytest.mark.parametrize("failure", [BlobMissing("gone"), StoreUnreachable("down")])
async def test_failure_is_told_before_any_byte(failure: Exception) -> None:
    store = Store()
    store.failures = {0: failure}
    async with viewed(store) as view:
        with pytest.raises(type(failure)):
            await view.available(0, WHOLE)


async def test_failure_of_the_step_ahead_is_told_when_its_turn_comes() -> None:
    store = Store()
    store.failures = {FIRST_STEP: StoreUnreachable("down")}
    async with viewed(store) as view:
        assert await sent(view, Span(0, FIRST_STEP, bounded=True)) == DATA[:FIRST_STEP]
        assert await view.available(FIRST_STEP - 1, WHOLE) == 1
        with pytest.raises(StoreUnreachable):
            await view.available(FIRST_STEP, WHOLE)


async def test_a_step_that_failed_is_asked_for_again() -> None:
    store = Store()
    store.failures = {0: StoreUnreachable("down")}
    async with viewed(store) as view:
        with pytest.raises(StoreUnreachable):
            await view.available(0, WHOLE)
        assert await view.available(0, WHOLE) > 0


async def test_closing_gives_up_what_is_under_way() -> None:
    store = Store()
    store.open.clear()
    async with trio.open_nursery() as nursery:
        view = ObjectBlob(Digest.of(b"any"), SIZE, store.read, nursery, trio.CapacityLimiter(1), set())
        nursery.start_soon(_hears_the_end, view)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            view.close()
            view.close()
            while nursery.child_tasks:
                await trio.sleep(0.001)
        store.open.set()


async def _hears_the_end(view: ObjectBlob) -> None:
    with pytest.raises(BlobBroken):
        await view.available(0, WHOLE)


async def test_reader_hears_of_the_end_of_the_store() -> None:
    store = Store()
    store.open.clear()
    async with trio.open_nursery() as reads, trio.open_nursery() as readers:
        view = ObjectBlob(Digest.of(b"any"), SIZE, store.read, reads, trio.CapacityLimiter(1), set())
        readers.start_soon(_hears_the_end, view)
        await trio.testing.wait_all_tasks_blocked()
        reads.cancel_scope.cancel()
        store.open.set()
