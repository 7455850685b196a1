from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cacheproxy.core.blob import BlobBroken
from cacheproxy.store import flow as flow_module
from cacheproxy.store.errors import BlobMissing, StoreUnreachable
from cacheproxy.store.flow import AHEAD, PATIENCE, Flow
from tests.store.flowing import CHUNK, DATA, SIZE, Store

BATCH = 3 * CHUNK


@asynccontextmanager
async def flowing(store: Store, start: int = 0, stop: int = SIZE) -> AsyncIterator[Flow]:
    async with trio.open_nursery() as nursery:
        flow = Flow(start, stop, store.get, trio.CapacityLimiter(2), lambda: BATCH)
        nursery.start_soon(flow.run)
        yield flow
        flow.end()
        store.open.set()


async def rest(flow: Flow) -> bytes:
    got = b""
    while flow.taken < flow.stop:
        got += b"".join(await flow.take())
    return got


async def until_it_waits() -> None:
    """Until the flow can do no more: threads are given a moment, too."""
    with trio.move_on_after(0.2):
        await trio.sleep_forever()


async def test_all_comes_from_one_get() -> None:
    store = Store()
    async with flowing(store) as flow:
        assert await rest(flow) == DATA[:SIZE]
    assert store.asked == [(0, SIZE)]


async def test_a_part_asks_for_no_more() -> None:
    store = Store()
    async with flowing(store, 1000, 1010) as flow:
        assert await rest(flow) == DATA[1000:1010]
    assert store.asked == [(1000, 1010)]


async def test_first_bytes_do_not_wait_for_a_batch() -> None:
    store = Store()
    async with flowing(store) as flow:
        assert sum(map(len, await flow.take())) == CHUNK
        assert sum(map(len, await flow.take())) == BATCH


async def test_no_more_is_read_ahead_than_promised() -> None:
    store = Store()
    async with flowing(store):
        await until_it_waits()
        assert store.given == CHUNK + AHEAD * BATCH


async def test_get_is_let_go_when_nobody_takes_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "IDLE", 0.1)  # a virtual clock would not wait for the threads
    store = Store()
    async with flowing(store) as flow:
        await trio.sleep(0.5)
        assert flow._reading is None
        assert await rest(flow) == DATA[:SIZE]
    # What was read when nobody took it is there; so is what waited before it.
    assert store.asked == [(0, SIZE), (CHUNK + AHEAD * BATCH, SIZE)]


async def test_get_that_fails_in_the_middle_is_followed_by_another() -> None:
    store = Store()
    store.cuts = {CHUNK + BATCH + CHUNK: StoreUnreachable("cut")}
    async with flowing(store) as flow:
        assert await rest(flow) == DATA[:SIZE]
    assert store.asked == [(0, SIZE), (CHUNK + BATCH, SIZE)]


@pytest.mark.parametrize("failure", [BlobMissing("gone"), StoreUnreachable("down")])
async def test_refusal_is_told_at_once(failure: Exception) -> None:
    store = Store()
    store.refusals = {0: failure}
    async with flowing(store) as flow:
        with pytest.raises(type(failure)):
            await flow.take()
    assert len(store.asked) == 1


@pytest.mark.parametrize("failure", [BlobMissing("gone"), StoreUnreachable("down")])
async def test_object_that_goes_in_the_middle_is_told_after_what_was_read(failure: Exception) -> None:
    store = Store()
    store.cuts = {CHUNK + BATCH: StoreUnreachable("cut")}
    store.refusals = {CHUNK + BATCH: failure}
    async with flowing(store) as flow:
        got = b"".join([*await flow.take(), *await flow.take()])
        assert got == DATA[: CHUNK + BATCH]
        with pytest.raises(type(failure)):
            await flow.take()


async def test_store_that_gives_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    store = Store()
    store.open.clear()
    async with flowing(store) as flow:
        began = trio.current_time()
        with pytest.raises(StoreUnreachable, match="nothing for 30 s"):
            await flow.take()
        assert trio.current_time() - began == pytest.approx(PATIENCE, abs=0.1)


async def test_end_gives_up_a_read_that_is_under_way() -> None:
    store = Store()
    store.open.clear()
    async with trio.open_nursery() as nursery:
        flow = Flow(0, SIZE, store.get, trio.CapacityLimiter(1), lambda: BATCH)
        nursery.start_soon(flow.run)
        await trio.testing.wait_all_tasks_blocked()
        flow.end()
        with trio.fail_after(1), pytest.raises(BlobBroken):
            await flow.take()
    store.open.set()


async def test_many_flows_take_turns_at_few_threads() -> None:
    store = Store()
    threads = trio.CapacityLimiter(2)
    got: dict[int, bytes] = {}

    async def follow(number: int) -> None:
        flow = Flow(number, SIZE, store.get, threads, lambda: BATCH)
        nursery.start_soon(flow.run)
        got[number] = await rest(flow)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(follow, number)
    assert all(got[number] == DATA[number:SIZE] for number in range(40))
