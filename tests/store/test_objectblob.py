from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import BlobMissing, StoreUnreachable
from cacheproxy.store.objectblob import BATCH, BATCHES, LEAST_BATCH, MEMORY, ObjectBlob
from tests.store.flowing import CHUNK, DATA, SIZE, Store

WHOLE = Span(0, SIZE, bounded=False)


@asynccontextmanager
async def viewed(store: Store) -> AsyncIterator[ObjectBlob]:
    async with trio.open_nursery() as nursery:
        view = ObjectBlob(Digest.of(b"any"), SIZE, store.get, nursery, trio.CapacityLimiter(4), set())
        yield view
        view.close()
        store.open.set()


async def sent(view: ObjectBlob, span: Span, piece: int = 50_000) -> bytes:
    got = b""
    while len(got) < span.length:
        at = span.start + len(got)
        count = await view.available(at, span)
        got += await view.read(at, min(count, piece))
    return got


async def test_whole_blob_is_one_get() -> None:
    store = Store()
    async with viewed(store) as view:
        assert await sent(view, WHOLE) == DATA[:SIZE]
    assert store.asked == [(0, SIZE)]


async def test_blob_comes_in_any_steps() -> None:
    store = Store()
    async with viewed(store) as view:
        assert (
            await sent(view, Span(CHUNK - 1, 5 * CHUNK, bounded=True), 3 * CHUNK)
            == DATA[CHUNK - 1 : 5 * CHUNK]
        )


async def test_small_range_asks_for_no_more() -> None:
    store = Store()
    async with viewed(store) as view:
        assert await sent(view, Span(1000, 1010, bounded=True)) == DATA[1000:1010]
    assert store.asked == [(1000, 1010)]


async def test_parts_of_one_answer_may_go_back() -> None:
    store = Store()
    async with viewed(store) as view:
        for span in (Span(5000, 6000, True), Span(0, 100, True), Span(SIZE - 3, SIZE, True)):
            assert await sent(view, span) == DATA[span.start : span.stop]
    assert store.asked == [(5000, 6000), (0, 100), (SIZE - 3, SIZE)]


async def test_part_that_goes_on_where_the_last_one_ended() -> None:
    store = Store()
    async with viewed(store) as view:
        for span in (Span(0, 100, True), Span(100, 300, True)):
            assert await sent(view, span) == DATA[span.start : span.stop]


async def test_many_readers_share_the_memory_by_smaller_batches() -> None:
    store = Store()
    async with viewed(store) as view:
        assert view._share() == BATCH
        others = [
            ObjectBlob(Digest.of(b"any"), SIZE, store.get, view._nursery, view._threads, view._all_open)
            for _ in range(MEMORY // (BATCHES * LEAST_BATCH))
        ]
        assert view._share() == LEAST_BATCH
        for other in others:
            other.close()
        assert view._share() == BATCH


@pytest.mark.parametrize("failure", [BlobMissing("gone"), StoreUnreachable("down")])
async def test_failure_is_told_before_any_byte(failure: Exception) -> None:
    store = Store()
    store.refusals = {0: failure}
    async with viewed(store) as view:
        with pytest.raises(type(failure)):
            await view.available(0, WHOLE)


async def test_what_failed_is_asked_for_again() -> None:
    store = Store()
    store.refusals = {0: StoreUnreachable("down")}
    async with viewed(store) as view:
        with pytest.raises(StoreUnreachable):
            await view.available(0, WHOLE)
        assert await sent(view, WHOLE) == DATA[:SIZE]


async def test_wait_that_was_cancelled_can_be_taken_up_again() -> None:
    store = Store()
    store.open.clear()
    async with viewed(store) as view:
        with trio.move_on_after(0.01) as short:
            await view.available(0, WHOLE)
        assert short.cancelled_caught
        store.open.set()
        assert await sent(view, WHOLE) == DATA[:SIZE]
    assert store.asked == [(0, SIZE)]


async def test_closing_gives_up_what_is_under_way() -> None:
    store = Store()
    store.open.clear()
    async with trio.open_nursery() as nursery:
        view = ObjectBlob(Digest.of(b"any"), SIZE, store.get, nursery, trio.CapacityLimiter(1), set())
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
        view = ObjectBlob(Digest.of(b"any"), SIZE, store.get, reads, trio.CapacityLimiter(1), set())
        readers.start_soon(_hears_the_end, view)
        await trio.testing.wait_all_tasks_blocked()
        reads.cancel_scope.cancel()
        store.open.set()
