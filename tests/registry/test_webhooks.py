"""Deliveries over real rows, with a wall clock that goes with the virtual one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from cacheproxy.core.envelopes import Teller
from cacheproxy.core.errors import OCIError
from cacheproxy.core.events import Event, Kind
from cacheproxy.core.patterns import Patterns
from cacheproxy.registry.sinks import STUCK, Sinks
from cacheproxy.registry.webhooks import LEASE, LOOK, REFUSALS, Delivery, Hook
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.errors import StoreBusy
from cacheproxy.store.outbox import Bounds, Outbox, OutboxRows, Sink
from cacheproxy.store.sqlite import SQLite
from cacheproxy.upstream.webhook import Answer, Unreached

NAME = "hooks.test"


class Receiver:
    """Answers what `say` says of an event's id and body."""

    def __init__(self) -> None:
        self.tries: list[tuple[float, str, dict[str, str]]] = []
        self.say: Callable[[str], Answer | Unreached] = lambda body: Answer(200, None)
        self.takes = 0.0
        self.running = 0
        self.most = 0

    async def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        self.tries.append((trio.current_time(), body.decode(), dict(headers)))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self.takes)
        finally:
            self.running -= 1
        said = self.say(body.decode())
        if isinstance(said, Unreached):
            raise said
        return said

    @property
    def subjects(self) -> list[str]:
        return [body.partition('"subject":"')[2].partition('"')[0] for _, body, _ in self.tries]

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.tries]


class House:
    def __init__(self, database: Database, nursery: trio.Nursery) -> None:
        self.database = database
        self.nursery = nursery
        self.receiver = Receiver()
        self.outbox = Outbox([Sink(NAME, frozenset(Kind), Patterns("**"))])
        self.rows = OutboxRows(database)
        self.sinks = Sinks(self.rows, self.outbox, self.now)
        self.delivery = self.another("one", shared=False)
        self.sinks.deliveries = {NAME: self.delivery}

    def another(self, node: str, *, shared: bool, keys: tuple[bytes, ...] = ()) -> Delivery:
        hook = Hook(NAME, "cloudevents", keys, self.receiver)
        rows, outbox = self.rows, self.outbox
        return Delivery(hook, rows, outbox, Teller(), self.now, node, shared=shared, chance=lambda: 1.0)

    def now(self) -> float:
        return 1_000_000.0 + trio.current_time()

    def start(self, delivery: Delivery | None = None) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await (delivery or self.delivery).run()

        self.nursery.start_soon(run)
        return scope

    async def note(self, *subjects: str) -> None:
        """ "repository:tag" each."""
        now = self.now()

        def note(tx: Tx) -> None:
            for repository, _, tag in (subject.partition(":") for subject in subjects):
                self.outbox.note(tx, Event(Kind.IMAGE_PUSHED, repository, now, tag=tag))

        await self.database.write(note)

    async def delivered(self, count: int) -> None:
        await self.until(lambda: len(self.receiver.tries) >= count)

    async def until(self, what: Callable[[], bool]) -> None:
        with trio.fail_after(1000):
            while not what():
                await trio.sleep(0.05)

    async def left(self) -> int:
        return sum(row.waiting for row in await self.rows.backlog())


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    async with SQLite.open(folder / "rows.db") as database, trio.open_nursery() as nursery:
        yield House(database, nursery)
        nursery.cancel_scope.cancel()


async def test_what_was_noted_is_told_and_gone(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        house.start()
        await house.note("team/app:1")
        await house.delivered(1)
        await trio.sleep(LOOK)
        assert house.receiver.subjects == ["team/app:1"]
        assert await house.left() == 0


async def test_what_is_noted_while_it_runs_is_told_within_a_second(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        house.start()
        await trio.sleep(100)
        await house.note("team/app:1")
        began = trio.current_time()
        await house.delivered(1)
        assert house.receiver.times[0] - began < 1.0


async def test_events_of_a_repository_come_in_order_and_repositories_side_by_side(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as house:
        house.receiver.takes = 1.0
        await house.note(*(f"{name}:{number}" for number in range(5) for name in "abcdef"))
        house.start()
        await house.delivered(30)
        for name in "abcdef":
            mine = [subject for subject in house.receiver.subjects if subject.startswith(name)]
            assert mine == [f"{name}:{number}" for number in range(5)]
        assert house.receiver.most == 4


async def test_who_is_away_is_asked_again_later_and_later_and_hears_all_in_order(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as house:
        house.receiver.say = lambda body: Answer(500, None)
        await house.note("a:1", "a:2", "b:1")
        house.start()
        await house.until(lambda: len(house.receiver.tries) >= 8)
        pauses = [b - a for a, b in zip(house.receiver.times[2:], house.receiver.times[3:], strict=False)]
        assert pauses == sorted(pauses)
        house.receiver.say = lambda body: Answer(200, None)
        house.receiver.tries.clear()
        await house.delivered(3)
        await trio.sleep(700)
        mine = [subject for subject in house.receiver.subjects if subject.startswith("a")]
        assert mine == ["a:1", "a:2"]
        assert house.receiver.subjects.count("b:1") == 1
        assert await house.left() == 0


async def test_each_try_has_the_same_id(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        house.receiver.say = lambda body: Unreached("connect: refused")
        await house.note("a:1")
        house.start()
        await house.delivered(4)
        ids = {headers["webhook-id"] for _, _, headers in house.receiver.tries}
        times = {headers["webhook-timestamp"] for _, _, headers in house.receiver.tries}
        assert (len(ids), len(times)) == (1, 4)


async def test_it_is_not_asked_before_it_wants_to_be(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        house.receiver.say = lambda body: Answer(429, 45.0)
        await house.note("a:1")
        house.start()
        await house.delivered(2)
        first, second = house.receiver.times
        assert second - first >= 45.0


async def test_an_event_that_is_refused_holds_up_its_own_repository_only_and_not_for_ever(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as house:
        house.receiver.say = lambda body: Answer(422 if "a:1" in body else 200, None)
        await house.note("a:1", "a:2", "b:1")
        house.start()
        await house.until(lambda: "b:1" in house.receiver.subjects)
        assert "a:2" not in house.receiver.subjects
        await house.until(lambda: "a:2" in house.receiver.subjects)
        assert house.receiver.subjects.count("a:1") == REFUSALS
        (dead,) = await house.rows.list(NAME, 10, dead=True)
        assert dead.error == "answered 422"
        house.receiver.say = lambda body: Answer(200, None)
        house.receiver.tries.clear()
        assert await house.sinks.replay(NAME, dead.id) == 1
        await house.delivered(1)
        assert house.receiver.tries[0][2]["webhook-id"] == dead.id


async def test_who_wants_no_more_is_not_asked_until_somebody_says_so(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as house:
        house.receiver.say = lambda body: Answer(410, None)
        await house.note("a:1")
        house.start()
        await house.delivered(1)
        await trio.sleep(10_000)
        assert len(house.receiver.tries) == 1
        (condition,) = await house.sinks.conditions()
        assert (condition.gone, condition.stuck, condition.waiting) == (True, True, 1)
        house.receiver.say = lambda body: Answer(200, None)
        house.sinks.resume(NAME)
        await house.delivered(2)
        with pytest.raises(OCIError, match="no \\[\\[webhook\\]\\] is named other"):
            house.sinks.resume("other")


async def test_a_delivery_is_signed(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        await house.note("a:1")
        house.start(house.another("one", shared=False, keys=(b"k" * 24,)))
        await house.delivered(1)
        assert house.receiver.tries[0][2]["webhook-signature"].startswith("v1,")


async def test_two_nodes_tell_it_once(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        house.receiver.takes = 0.5
        house.start(house.another("one", shared=True))
        house.start(house.another("two", shared=True))
        for number in range(20):
            await house.note(f"a:{number}", f"b:{number}")
            await trio.sleep(0.3)
        await house.delivered(40)
        await trio.sleep(2 * LOOK)
        assert len(house.receiver.tries) == 40
        assert await house.left() == 0


async def test_another_node_goes_on_for_one_that_died(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        assert await house.rows.lease(NAME, "dead", house.now(), house.now() + LEASE)
        await house.note("a:1")
        house.start(house.another("two", shared=True))
        await trio.sleep(LEASE - 1)
        assert house.receiver.tries == []
        await house.delivered(1)


async def test_what_was_delivered_when_the_daemon_ends_is_not_sent_again(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as house:
        house.receiver.takes = 1.0
        await house.note("a:1", "a:2", "a:3")
        scope = house.start()
        await house.delivered(2)
        scope.cancel()
        await trio.sleep(1)
        assert await house.left() == 2  # the second one was under way
        house.start()
        await house.delivered(4)
        assert house.receiver.subjects == ["a:1", "a:2", "a:2", "a:3"]


async def test_rows_that_cannot_be_had_are_asked_for_again(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as house:
        real, failures = house.rows.waiting, 2

        async def fail(*arguments: object) -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoreBusy(5, "away")
            return await real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(house.rows, "waiting", fail)
        await house.note("a:1")
        house.start()
        await house.delivered(1)


async def test_it_is_said_once_that_nothing_is_taken_and_once_that_it_is_again(
    tmp_path: Path, clock: MockClock
) -> None:
    async with opened(tmp_path) as house:
        with structlog.testing.capture_logs() as logs:
            house.receiver.say = lambda body: Answer(503, None)
            await house.note("a:1")
            house.start()
            await house.delivered(4)
            house.receiver.say = lambda body: Answer(200, None)
            await house.until(lambda: len(logs) >= 2)
        assert [line["event"] for line in logs] == ["events are not delivered", "events are delivered again"]
        assert logs[0]["reason"] == "answered 503"


async def test_what_waits_for_long_makes_a_sink_stuck(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        house.receiver.say = lambda body: Answer(503, None)
        await house.note("a:1")
        house.start()
        await house.delivered(1)
        (condition,) = await house.sinks.conditions()
        assert (condition.failing, condition.stuck) == ("answered 503", False)
        await trio.sleep(STUCK)
        (condition,) = await house.sinks.conditions()
        assert condition.stuck


async def test_what_waits_is_bounded_and_that_is_said(tmp_path: Path, clock: MockClock) -> None:
    async with opened(tmp_path) as house:
        sinks = Sinks(house.rows, house.outbox, house.now, Bounds(waiting=3, dead=2))
        await house.note(*(f"a:{number}" for number in range(8)))
        with structlog.testing.capture_logs() as logs, trio.move_on_after(5):
            await sinks.run()
        assert [(line["event"], line["events"]) for line in logs] == [
            ("events were given up", 5),
            ("events that were given up are gone", 3),
        ]
        (condition,) = await sinks.conditions()
        assert (condition.configured, condition.waiting, condition.dead) == (False, 3, 2)
