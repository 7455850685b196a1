"""Events on their way, on every database."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cacheproxy.core.events import WORDS, Event, Kind, decode
from cacheproxy.core.patterns import Patterns
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.outbox import Backlog, Bounds, Outbox, OutboxRows, Postponed, Sink, Waiting

ALL = Sink("all", frozenset(Kind), Patterns("**"))
PUSHES = Sink("pushes", WORDS["push"], Patterns(("team/**", "!team/tmp/**")))


@pytest.fixture
def outbox() -> Outbox:
    return Outbox([ALL])


@pytest.fixture
def rows(database: Database) -> OutboxRows:
    return OutboxRows(database)


async def note(database: Database, outbox: Outbox, *events: Event) -> None:
    def note(tx: Tx) -> None:
        for event in events:
            outbox.note(tx, event)

    await database.write(note)


def pushed(repository: str, at: float = 1.0, tag: str = "") -> Event:
    return Event(Kind.IMAGE_PUSHED, repository, at, tag=tag)


def tags(rows: Sequence[Waiting]) -> list[str]:
    return [decode(row.event).tag for row in rows]


async def test_each_sink_that_wants_an_event_has_it_under_one_id(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    outbox.sinks = (ALL, PUSHES)
    event = pushed("team/app")
    await note(database, outbox, event)
    (first,) = await rows.waiting("all", 2.0, 10)
    (second,) = await rows.waiting("pushes", 2.0, 10)
    assert first.id == second.id
    assert decode(first.event) == event
    assert (first.repository, first.noted, first.tries) == ("team/app", 1.0, 0)


@pytest.mark.parametrize(
    "event",
    [pushed("other/app"), pushed("team/tmp/app"), Event(Kind.IMAGE_DELETED, "team/app", 1.0)],
    ids=["another place", "taken away", "another kind"],
)
async def test_a_sink_hears_only_of_what_it_wants(
    database: Database, outbox: Outbox, rows: OutboxRows, event: Event
) -> None:
    outbox.sinks = (PUSHES,)
    await note(database, outbox, event)
    assert await rows.waiting("pushes", 2.0, 10) == []
    assert outbox.noted == 0


async def test_without_sinks_nothing_is_noted_and_one_that_comes_later_hears_what_follows(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    outbox.sinks = ()
    await note(database, outbox, pushed("team/app", tag="before"))
    assert not outbox.wants(*Kind)
    outbox.sinks = (ALL,)
    await note(database, outbox, pushed("team/app", tag="after"))
    assert tags(await rows.waiting("all", 2.0, 10)) == ["after"]


async def test_what_is_not_committed_is_not_told(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    def fail(tx: Tx) -> None:
        outbox.note(tx, pushed("team/app"))
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(fail)
    assert await rows.waiting("all", 2.0, 10) == []


async def test_events_wait_in_their_order_and_go_when_they_were_told(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, *(pushed("team/app", tag=str(number)) for number in range(5)))
    first, second, *_ = await rows.waiting("all", 2.0, 2)
    assert tags([first, second]) == ["0", "1"]
    await rows.told([first, second], None, None, 2.0)
    assert tags(await rows.waiting("all", 2.0, 10)) == ["2", "3", "4"]


async def test_a_postponed_event_holds_back_what_follows_in_its_repository_only(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, pushed("a", tag="1"), pushed("a", tag="2"), pushed("b", tag="3"))
    first, *_ = await rows.waiting("all", 2.0, 10)
    await rows.told([], Postponed(first, 9.0, "answered 500"), None, 2.0)
    assert tags(await rows.waiting("all", 8.9, 10)) == ["3"]
    again, *rest = await rows.waiting("all", 9.0, 10)
    assert (again.tries, tags(rest)) == (1, ["2", "3"])
    assert [row.error for row in await rows.list("all", 1, dead=False)] == ["answered 500"]


async def test_a_refused_event_is_dead_and_holds_nothing_back(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, pushed("a", tag="1"), pushed("a", tag="2"))
    first, _ = await rows.waiting("all", 2.0, 10)
    await rows.told([], None, (first, "answered 400"), 3.0)
    assert tags(await rows.waiting("all", 3.0, 10)) == ["2"]
    (dead,) = await rows.list("all", 10, dead=True)
    assert (dead.id, dead.dead, dead.error) == (first.id, 3.0, "answered 400")


async def test_what_is_replayed_waits_again_before_what_followed_it_with_its_id(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, pushed("a", tag="1"), pushed("a", tag="2"))
    first, _ = await rows.waiting("all", 2.0, 10)
    await rows.told([], None, (first, "answered 400"), 3.0)
    assert await rows.replay("other", None, 4.0) == 0
    assert await rows.replay(None, first.id, 4.0) == 1
    again, _ = await rows.waiting("all", 4.0, 10)
    assert (again.id, again.noted, again.tries) == (first.id, 4.0, 0)
    assert await rows.list(None, 10, dead=True) == []


async def test_what_is_dropped_is_gone(database: Database, outbox: Outbox, rows: OutboxRows) -> None:
    await note(database, outbox, pushed("a", tag="1"), pushed("a", tag="2"))
    first, _ = await rows.waiting("all", 2.0, 10)
    await rows.told([], None, (first, "answered 400"), 3.0)
    assert await rows.drop("all", None, dead=True) == 1
    assert tags(await rows.waiting("all", 3.0, 10)) == ["2"]
    assert await rows.drop("all", None, dead=False) == 1
    assert await rows.backlog() == []


async def test_a_number_that_came_again_is_not_taken_for_the_row_that_had_it(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, pushed("a", tag="former"))
    (former,) = await rows.waiting("all", 2.0, 10)
    await rows.drop(None, None, dead=False)
    await note(database, outbox, pushed("a", tag="later"))
    await rows.told([former], None, None, 2.0)
    assert tags(await rows.waiting("all", 2.0, 10)) == ["later"]


async def test_the_backlog_is_counted_by_sink(database: Database, outbox: Outbox, rows: OutboxRows) -> None:
    outbox.sinks = (ALL, PUSHES)
    await note(database, outbox, pushed("team/app", 5.0), pushed("other", 7.0))
    first, _ = await rows.waiting("all", 8.0, 10)
    await rows.told([], None, (first, "no"), 8.0)
    (last,) = await rows.waiting("all", 8.0, 10)
    await rows.told([], Postponed(last, 99.0, "no"), None, 8.0)
    assert await rows.backlog() == [Backlog("all", 1, 1, 7.0, 8.0), Backlog("pushes", 1, 0, 5.0, 0.0)]


async def test_who_waited_too_long_is_given_up_with_the_reason_of_its_last_try(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, pushed("a", 10.0), pushed("b", 20.0), pushed("c", 300.0))
    first, *_ = await rows.waiting("all", 300.0, 10)
    await rows.told([], Postponed(first, 500.0, "answered 500"), None, 300.0)
    tidied = await rows.tidy(301.0, Bounds(wait=100.0))
    assert tidied == ({"all": 2}, {})
    assert [row.error for row in await rows.list(None, 10, dead=True)] == [
        "answered 500",
        "not delivered in time",
    ]
    assert [row.repository for row in await rows.waiting("all", 301.0, 10)] == ["c"]


async def test_beyond_the_bound_the_oldest_are_given_up_and_then_let_go(
    database: Database, outbox: Outbox, rows: OutboxRows
) -> None:
    await note(database, outbox, *(pushed("a", tag=str(number)) for number in range(10)))
    tidied = await rows.tidy(2.0, Bounds(waiting=4, dead=5))
    assert tidied == ({"all": 6}, {"all": 1})
    assert tags(await rows.waiting("all", 2.0, 10)) == ["6", "7", "8", "9"]
    kept = await rows.list("all", 10, dead=True)
    assert [decode(row.event).tag for row in kept] == ["1", "2", "3", "4", "5"]


async def test_what_was_dead_for_too_long_goes(database: Database, outbox: Outbox, rows: OutboxRows) -> None:
    await note(database, outbox, pushed("a", 10.0))
    await rows.tidy(200.0, Bounds(wait=100.0))
    assert await rows.tidy(300.0, Bounds(keep=200.0)) == ({}, {})
    assert await rows.tidy(401.0, Bounds(keep=200.0)) == ({}, {"all": 1})
    assert await rows.backlog() == []


async def test_one_node_delivers_to_a_sink_at_a_time(rows: OutboxRows) -> None:
    assert await rows.lease("all", "one", 0.0, 30.0)
    assert not await rows.lease("all", "two", 1.0, 31.0)
    assert await rows.lease("other", "two", 1.0, 31.0)
    assert await rows.lease("all", "one", 20.0, 50.0)
    assert not await rows.lease("all", "two", 31.0, 61.0)
    assert await rows.lease("all", "two", 50.0, 80.0)
    await rows.release("all", "two")
    assert await rows.lease("all", "one", 51.0, 81.0)
