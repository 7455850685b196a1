from __future__ import annotations

import math
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from trio.testing import MockClock

from cacheproxy.registry import eviction
from cacheproxy.registry.eviction import CHECK_EVERY, GENTLE, KEEP_EVERY, TIDY_EVERY
from cacheproxy.registry.space import LOW
from cacheproxy.store.errors import StoreFull, StoreSuspect
from cacheproxy.store.rows import Evictable
from tests.registry.storehouse import TOTAL, Storehouse, View, digest, storehouse
from tests.store.hosting import host
from tests.store.images import LAYER_BYTES, LAYER_DIGEST, REPOSITORY, image, record

BUDGET = 1000
DAY = 86400.0
Unlink = Callable[[str], object]
LINK = """
INSERT INTO link (repository, digest, size) SELECT id, :digest, 1 FROM repository WHERE name = 'team/app'
"""


def evicted(reason: str) -> float:
    return REGISTRY.get_sample_value("cacheproxy_evicted_bytes_total", {"reason": reason}) or 0.0


async def ten(house: Storehouse) -> None:
    """The budget, in ten blobs of different age, the oldest first."""
    for n in range(10):
        await house.store(n, BUDGET // 10, house.now - 100 + n)


# The budget.


async def test_what_fits_pushes_nothing_out(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await nursery.start(house.eviction.run)
        for n in range(10):
            assert await house.fill(n, BUDGET // 10)
        assert await house.here(*range(10)) == list(range(10))


async def test_the_least_recently_used_go_down_to_the_low_mark(tmp_path: Path, nursery: trio.Nursery) -> None:
    before = evicted("budget")
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 50)
        assert await house.here(*range(10), "new") == [*range(1, 10), "new"]
        assert house.space.used <= LOW * BUDGET
        assert house.content.used == house.space.used
    assert evicted("budget") == before + 100


async def test_what_was_read_stays_and_the_next_goes(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        house.recency.reading(View(digest(0))).close()
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 100)
        assert await house.here(*range(10)) == [0, *range(3, 10)]


async def test_what_is_being_read_stays(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        reader = house.recency.reading(View(digest(0)))
        house.now -= 1000  # so long ago that the rows do not tell
        await house.recency.write()
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 100)
        assert 0 in await house.here(0)
        reader.close()
        assert await house.fill("newer", 100)


async def test_what_is_pinned_stays(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await record(house.records, image(), "latest")
        await house.records.pin(REPOSITORY, "latest")
        await ten(house)
        await house.records.record_blob(LAYER_DIGEST, len(LAYER_BYTES), "blobs/pinned", 5, 0.0)
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 900)
        row = await house.records.any_blob(LAYER_DIGEST)
        assert row is not None
        assert row.location == "blobs/pinned"


async def test_blob_that_can_never_fit_pushes_nothing_out(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        await nursery.start(house.eviction.run)
        assert not await house.fill("large", BUDGET + 1)
        assert await house.here(*range(10)) == list(range(10))


async def test_nothing_goes_for_what_would_not_fit_beside_what_is_held(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        readers = [house.recency.reading(View(digest(n))) for n in range(5)]
        await nursery.start(house.eviction.run)
        assert not await house.fill("large", 600)
        assert await house.here(*range(10)) == list(range(10))
        for reader in readers:
            reader.close()


async def test_what_could_not_fit_is_not_looked_for_with_each_request(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        evictable = house.records.evictable

        async def counted(
            n: int, after: Evictable | None = None, before: float = math.inf
        ) -> list[Evictable]:
            nonlocal looks
            looks += 1
            return await evictable(n, after, before)

        monkeypatch.setattr(house.records, "evictable", counted)
        readers = [house.recency.reading(View(digest(n))) for n in range(10)]
        nursery.start_soon(house.eviction.run)
        for _ in range(5):
            assert not await house.fill("new", 100)
        first = looks
        for reader in readers:
            reader.close()
        await trio.sleep(eviction.BARREN)
        assert await house.fill("new", 100)
    assert first == 2, "one page, and none behind it"


async def test_many_fills_at_once_all_get_room(tmp_path: Path, nursery: trio.Nursery) -> None:
    got: dict[int, bool] = {}
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        await nursery.start(house.eviction.run)

        async def one(n: int) -> None:
            got[n] = await house.eviction.reserve(digest(f"new{n}"), 90)

        async with trio.open_nursery() as fills:
            for n in range(10):
                fills.start_soon(one, n)
        assert house.space.used <= BUDGET
    assert list(got.values()) == [True] * 10


async def test_a_client_that_leaves_gives_up_its_place_in_the_line(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        with trio.CancelScope() as client:
            client.cancel()
            await house.eviction.reserve(digest("new"), 500)
        await nursery.start(house.eviction.run)
        assert await house.fill("other", 50)
        assert await house.here(*range(10)) == list(range(1, 10))


async def test_a_lower_budget_holds_from_the_first_look_on(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    async with storehouse(tmp_path, BUDGET // 2) as house:
        await ten(house)
        nursery.start_soon(house.eviction.run)
        await trio.sleep(CHECK_EVERY + 1)
        assert await house.here(*range(10)) == [6, 7, 8, 9]


async def test_many_blobs_that_nobody_waits_for_go_with_pauses(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    async with storehouse(tmp_path, budget=1) as house:
        for n in range(2 * GENTLE + 1):
            await house.store(n, 40)
        nursery.start_soon(house.eviction.run)
        begin = trio.current_time()
        with trio.fail_after(60):
            while house.content.files:
                await trio.sleep(eviction.PAUSE / 10)
        assert CHECK_EVERY + 2 * eviction.PAUSE <= trio.current_time() - begin < CHECK_EVERY + 1


async def test_who_asks_ends_the_pause(tmp_path: Path, nursery: trio.Nursery, clock: MockClock) -> None:
    async with storehouse(tmp_path, 4000) as house:
        for n in range(100):
            await house.store(n, 40, house.now - 100 + n)
        nursery.start_soon(house.eviction.run)
        begin = trio.current_time()
        assert await house.fill("large", 3900)
        assert trio.current_time() - begin < eviction.PAUSE


async def test_what_other_nodes_store_counts(tmp_path: Path, nursery: trio.Nursery, clock: MockClock) -> None:
    async with storehouse(tmp_path, BUDGET, shared=True) as house:
        nursery.start_soon(house.eviction.run)
        await house.records.record_blob(digest("theirs"), 70, "blobs/theirs", 5, house.now)
        await house.store("ours", 30)
        await trio.sleep(TIDY_EVERY + 1)
        assert house.space.used == 100


async def test_a_budget_that_is_lowered_holds_at_once(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        nursery.start_soon(house.eviction.run)
        await trio.sleep(1)
        house.space.limit(BUDGET // 2, lambda _: 0)
        house.eviction.limits_changed({})
        await trio.sleep(1)
        assert await house.here(*range(10)) == [6, 7, 8, 9]


# The disk.


async def test_what_others_fill_is_made_good(tmp_path: Path, nursery: trio.Nursery, clock: MockClock) -> None:
    before = evicted("min_free")
    async with storehouse(tmp_path, BUDGET, min_free=200) as house:
        await ten(house)
        nursery.start_soon(house.eviction.run)
        await trio.sleep(CHECK_EVERY + 1)
        assert await house.here(*range(10)) == list(range(10))
        house.content.others = TOTAL - BUDGET - 50
        await trio.sleep(CHECK_EVERY + 1)
        assert await house.here(*range(10)) == list(range(2, 10))
    assert evicted("min_free") == before + 200


async def test_a_write_that_finds_the_disk_full_makes_room(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    """Whatever the file system told: a quota, or one that somebody else filled meanwhile."""
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        nursery.start_soon(house.eviction.run)
        house.eviction.ran_out(250)
        await trio.sleep(1)
        assert await house.here(*range(10)) == list(range(3, 10))
        await trio.sleep(10 * CHECK_EVERY)
        assert await house.here(*range(10)) == list(range(3, 10)), "once is enough"


# Unfinished downloads.


async def test_unfinished_downloads_go_in_their_turn(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await house.store("older", 400, house.now - 3)
        house.leave("part", 200, house.now - 2)
        await house.store("newer", 400, house.now - 1)
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 550)
        assert await house.here("older", "newer") == ["newer"]
        assert house.content.parts == {}
        assert house.space.used == 950


async def test_an_unfinished_download_is_not_removed_to_make_room_for_its_rest(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        house.leave("part", 200, house.now - 9)
        await house.store("older", 700, house.now - 3)
        await nursery.start(house.eviction.run)
        assert await house.eviction.reserve(digest("part"), 500)
        assert set(house.content.parts) == {digest("part")}


async def test_running_downloads_are_not_touched(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        house.leave("running", 500, house.now - 9)
        assert house.space.reserve(digest("running"), 500)
        house.content.running.add(digest("running"))
        await house.store("stored", 400, house.now - 3)
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 450)
        assert set(house.content.parts) == {digest("running")}
        assert not await house.fill("large", 600)


# Trash.


async def test_what_a_kill_left_is_unlinked_before_anything_else(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        await house.records.evict(await house.records.evictable(4), house.now)
        assert len(house.content.files) == 10
        await nursery.start(house.eviction.run)
        assert len(house.content.files) == 6
        assert await house.records.due_trash(math.inf, 100) == []


async def test_trash_that_hangs_keeps_no_door_closed(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:

        async def hangs(*_: object) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(house.records, "due_trash", hangs)
        with trio.fail_after(60):
            await nursery.start(house.eviction.run)
        assert await house.fill("new", 100)


async def test_what_cannot_be_unlinked_counts_until_it_can(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        stuck = next(iter(house.content.files))
        house.content.failing.add(stuck)
        nursery.start_soon(house.eviction.run)
        await house.fill("new", 50)
        assert house.space.used == house.content.used
        assert await house.records.due_trash(house.now, 100) == [stuck]
        house.content.failing.clear()
        await trio.sleep(TIDY_EVERY + 1)
        assert stuck not in house.content.files
        assert house.space.used == house.content.used
        assert await house.records.due_trash(house.now, 100) == []


async def test_what_cannot_be_unlinked_holds_up_nothing_behind_it(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacheproxy.registry.trash.BATCH", 2)
    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        house.content.failing |= set(list(house.content.files)[:3])
        await house.records.evict(await house.records.evictable(10), house.now)
        await nursery.start(house.eviction.run)
        assert set(house.content.files) == house.content.failing


# Failures.


async def test_rows_that_cannot_be_written_refuse_the_room_and_end_nothing(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise StoreSuspect(5, "the disk fails")

    async with storehouse(tmp_path, BUDGET) as house:
        await ten(house)
        await nursery.start(house.eviction.run)
        with monkeypatch.context() as patch:
            patch.setattr(house.records, "evict", fails)
            assert not await house.fill("new", 100)
        assert len(house.content.files) == 10
        assert await house.fill("new", 100)


async def test_unfinished_downloads_make_room_for_rows(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreFull(28, "no room in the database")

    async with storehouse(tmp_path, BUDGET) as house:
        await house.store("old", 600, house.now - 10)
        house.leave("part", 300, house.now)
        monkeypatch.setattr(house.records, "evict", full)
        await nursery.start(house.eviction.run)
        await house.fill("new", 200)
        assert house.content.parts == {}
        assert house.space.used == house.content.used


async def test_where_nothing_can_be_noted_some_bytes_go_before_their_rows(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storehouse(tmp_path) as house:
        for n in range(4):
            await house.store(n, eviction.ROWS, house.now - 10 + n)
        house.content.others = TOTAL - house.content.used
        really = house.records.evict

        async def evict(blobs: Sequence[Evictable], not_before: float, *unlink: Unlink) -> list[Evictable]:
            if house.content.capacity()[0] < eviction.ROWS and not unlink:
                raise StoreFull(28, "no room in the database")
            return await really(blobs, not_before, *unlink)

        monkeypatch.setattr(house.records, "evict", evict)
        await nursery.start(house.eviction.run)
        assert await house.fill("new", 100)
        assert await house.here(*range(4)) == [1, 2, 3]
        assert house.space.used == house.content.used
        assert await house.records.due_trash(math.inf, 10) == []


async def test_what_was_pushed_meanwhile_keeps_its_bytes_where_nothing_can_be_noted(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storehouse(tmp_path) as house:
        for n in range(4):
            await house.store(n, eviction.ROWS, house.now - 10 + n)
        house.content.others = TOTAL - house.content.used
        really, database = house.records.evict, house.records._database
        await host(database, "team/app")

        async def evict(blobs: Sequence[Evictable], not_before: float, *unlink: Unlink) -> list[Evictable]:
            if unlink:  # between the choice and the transaction
                await database.write(lambda tx: tx.run(LINK, digest=blobs[0].digest))
            elif house.content.capacity()[0] < eviction.ROWS:
                raise StoreFull(28, "no room in the database")
            return await really(blobs, not_before, *unlink)

        monkeypatch.setattr(house.records, "evict", evict)
        await nursery.start(house.eviction.run)
        await house.fill("new", 100)
        assert (await house.here(*range(4)))[0] == 0


# Age.


async def test_what_was_not_pulled_for_long_goes_whatever_the_budget(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    before = evicted("keep")
    async with storehouse(tmp_path, keep={"hub": 30 * DAY}) as house:
        await house.store("old", 10, house.now - 31 * DAY, "hub")
        await house.store("new", 10, house.now - 29 * DAY, "hub")
        nursery.start_soon(house.eviction.run)
        await trio.sleep(1)
        house.now += KEEP_EVERY
        await trio.sleep(KEEP_EVERY)
        assert await house.here("old", "new") == ["new"]
    assert evicted("keep") == before + 10


async def test_blob_stays_while_one_of_its_upstreams_keeps_it(tmp_path: Path) -> None:
    async with storehouse(tmp_path, keep={"hub": 30 * DAY, "quay": 90 * DAY, "own": math.inf}) as house:
        used = house.now - 60 * DAY
        await house.store("hub", 10, used, "hub")
        await house.store("both", 10, used, "hub", "quay")
        await house.store("own", 10, used, "hub", "own")
        await house.store("unknown", 10, used, "hub", "gone-from-the-configuration")
        await house.eviction.expire()
        assert await house.here("hub", "both", "own", "unknown") == ["both", "own", "unknown"]


async def test_a_clock_that_was_set_makes_nothing_too_old(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    async with storehouse(tmp_path, keep={"hub": 30 * DAY}) as house:
        await house.store("a", 10, house.now, "hub")
        nursery.start_soon(house.eviction.run)
        await trio.sleep(1)
        house.now += 365 * DAY
        await trio.sleep(KEEP_EVERY)
        assert await house.here("a") == ["a"]


async def test_an_upstream_may_begin_to_keep_for_less_long(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    async with storehouse(tmp_path) as house:
        await house.store("old", 10, house.now - 31 * DAY, "hub")
        nursery.start_soon(house.eviction.run)
        await trio.sleep(1)
        house.eviction.limits_changed({"hub": 30 * DAY})
        house.now += KEEP_EVERY
        await trio.sleep(KEEP_EVERY)
        assert await house.here("old") == []


# The rule.


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    action = st.tuples(
        st.sampled_from(["fill", "fill", "read", "hold"]), st.integers(0, 15), st.integers(1, 400)
    )
    return draw(st.lists(action, min_size=5, max_size=25))


@given(histories())
@settings(max_examples=20, deadline=None)
def test_those_that_went_are_the_least_recently_used_that_nobody_holds(
    history: list[tuple[str, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_replay, Path(folder), history)


async def _replay(folder: Path, history: list[tuple[str, int, int]]) -> None:
    """The model: names in the order of their last use, and their sizes."""
    model: OrderedDict[int, int] = OrderedDict()
    held = set[int]()
    async with storehouse(folder, BUDGET) as house, trio.open_nursery() as nursery:
        await nursery.start(house.eviction.run)
        for action, name, size in history:
            house.now += 1
            if action == "fill" and name not in model:
                expected = _after(model, held, size)
                assert await house.fill(name, size) == (expected is not None)
                if expected is not None:
                    model = expected
                    model[name] = size
            elif name in model:
                view = house.recency.reading(View(digest(name)))
                model.move_to_end(name)
                if action == "hold" and name not in held:
                    held.add(name)
                else:
                    view.close()
            assert set(await house.here(*range(16))) == set(model)
            assert house.space.used == house.content.used == sum(model.values()) <= BUDGET
        nursery.cancel_scope.cancel()


def _after(model: OrderedDict[int, int], held: set[int], size: int) -> OrderedDict[int, int] | None:
    """What is left when a blob of `size` bytes has got room; None: it cannot."""
    left = OrderedDict(model)
    if sum(left.values()) + size <= BUDGET:
        return left
    if sum(left[name] for name in held) + size > BUDGET:
        return None
    for name in model:
        if sum(left.values()) + size <= int(LOW * BUDGET):
            break
        if name not in held:
            del left[name]
    return left
