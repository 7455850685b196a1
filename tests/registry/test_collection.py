from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.registry import collection
from cacheproxy.registry.collection import BY_ANOTHER, EVERY, Collector, Pass
from cacheproxy.registry.space import Space
from cacheproxy.store.collection import Collection, Swept
from cacheproxy.store.database import Database
from cacheproxy.store.errors import StoreBusy
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from tests.store.hosting import host, rows

TEAM = "team/app"
GRACE = 86400.0


class House:
    """A collector over real rows, whose wall clock goes with the virtual one, plus what it was set by."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.records = Records(database)
        self.space = Space(None, lambda total: 0, lambda: (1 << 40, 1 << 40), stored=77, partials=())
        self.set_by = 1_000_000.0
        self.changes = 0
        self.collection = Collection(database)
        self.collector = self.another("one")

    def another(self, name: str) -> Collector:
        return Collector(self.collection, self.records, self.space, self.change, self.now, name)

    def change(self) -> None:
        self.changes += 1

    def now(self) -> float:
        return self.set_by + trio.current_time()

    async def upload(self, name: str, keep: float = GRACE) -> Digest:
        digest, now = Digest.of(name.encode()), self.now()
        await Pushing(self.database).record(TEAM, "0" * 32, digest, 10, f"blobs/{name}.1", 1, now, now + keep)
        return digest

    async def blobs(self) -> int:
        ((count,),) = await rows(self.database, "SELECT count(*) FROM blob")
        return int(str(count))

    async def ask(self, collector: Collector | None = None, **how: bool) -> Pass:
        """A pass that somebody asked for, to its end."""
        wish = (collector or self.collector).ask(**{"earnest": True, "anyway": False, **how})
        with trio.fail_after(60):
            while wish.running:
                await trio.sleep(0.01)
        return wish


@asynccontextmanager
async def opened(folder: Path, *, running: bool = True) -> AsyncIterator[House]:
    async with SQLite.open(folder / "rows.db") as database, trio.open_nursery() as nursery:
        await host(database, TEAM)
        house = House(database)
        if running:
            nursery.start_soon(house.collector.run)
        yield house
        nursery.cancel_scope.cancel()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The brake is for more than two."""
    monkeypatch.setattr(collection, "MOST", 2)


async def test_what_is_due_goes_within_two_minutes(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        await house.upload("a")
        await trio.sleep(GRACE - 1)
        assert await house.blobs() == 1
        await trio.sleep(2 * EVERY)
        assert await house.blobs() == 0


async def test_bytes_of_the_cache_are_counted_anew(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        await house.upload("a", keep=0)
        await house.ask()
        assert house.space.used == 0


async def test_a_dry_run_says_what_would_go(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path, running=False) as house:
        for name in "abc":
            await house.upload(name, keep=0)
        wish = house.collector.ask(earnest=False, anyway=False)
        with trio.move_on_after(EVERY / 2):
            await house.collector.run()
        assert not wish.running
        assert wish.swept == Swept(looked=3, links=3, blobs=3, bytes=30)
        assert await house.blobs() == 3


async def test_a_clock_that_was_set_makes_nothing_old(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        await house.upload("a")
        await trio.sleep(EVERY)
        house.set_by += 10 * 86400
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(GRACE - 3 * EVERY)
        assert await house.blobs() == 1
        assert "the clock was set" in house.collector.state().stopped
        assert "the clock was set" in (await house.ask()).stopped
        assert [line["event"] for line in logs][:1] == ["collection stopped"]
        await trio.sleep(5 * EVERY)
        assert await house.blobs() == 0


async def test_a_mass_deletion_waits_for_somebody_to_look(
    tmp_path: Path, clock: MockClock, few: None
) -> None:
    async with opened(tmp_path) as house:
        for name in "abc":
            await house.upload(name, keep=0)
        await house.upload("d")
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(10 * EVERY)
        assert await house.blobs() == 4
        assert [line["event"] for line in logs] == ["collection stopped"]
        assert (await house.ask(earnest=False)).swept.blobs == 3
        assert "30 of 40 bytes would go at once" in (await house.ask()).stopped
        assert (await house.ask(anyway=True)).swept.blobs == 3
        assert house.collector.state().stopped == ""


@pytest.mark.parametrize("due", ["few", "a small share"])
async def test_the_brake_is_for_much_of_all(tmp_path: Path, clock: MockClock, few: None, due: str) -> None:
    async with opened(tmp_path) as house:
        for name in "ab" if due == "few" else "abc":
            await house.upload(name, keep=0)
        for number in range(20 if due == "a small share" else 0):
            await house.upload(f"kept{number}")
        assert (await house.ask()).stopped == ""


async def test_what_fails_ends_a_pass_and_is_tried_again(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*arguments: object, **named: object) -> Swept:
        raise StoreBusy(16, "the database is busy")

    async with opened(tmp_path) as house:
        await house.upload("a", keep=0)
        with monkeypatch.context() as failing:
            failing.setattr(house.collection, "sweep", busy)
            assert (await house.ask()).stopped == "[Errno 16] the database is busy"
        await trio.sleep(2 * EVERY)
        assert await house.blobs() == 0


async def test_one_node_collects_at_a_time(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        await house.upload("a", keep=0)
        await house.collection.lease("two", house.now(), house.now() + 60)
        assert (await house.ask()).stopped == BY_ANOTHER
        await trio.sleep(2 * EVERY)
        assert await house.blobs() == 0
        assert await rows(house.database, "SELECT * FROM lease") == []


async def test_many_go_batch_by_batch(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        for number in range(3 * collection.BATCH + 1):
            await house.upload(str(number), keep=0)
        assert (await house.ask()).swept.blobs == 3 * collection.BATCH + 1


async def test_a_pass_nobody_asked_for_is_unknown(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        with pytest.raises(OCIError, match="no collection 7"):
            house.collector.progress(7)
