"""Rows of events on their way: one for each event and each sink that is to be told, until it was.

`Outbox` notes them, within the transaction of the change; `OutboxRows` is what delivers them, and what a
person sees. A row is waiting, or dead (given up; it can be replayed). Numbers grow: what happened to a
repository later has the higher one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import NamedTuple

from cacheproxy.core import events
from cacheproxy.core.events import Event, Kind
from cacheproxy.core.patterns import Patterns
from cacheproxy.store import leases
from cacheproxy.store.database import Database, Tx

NOTE = """
INSERT INTO outbox (sink, id, kind, repository, event, noted, due, tries, error)
VALUES (:sink, :id, :kind, :repository, :event, :now, 0, 0, '')
"""

# What waits behind an event that is to be tried again later waits with it.
WAITING = """
SELECT number, id, repository, event, noted, tries FROM outbox
WHERE sink = :sink AND dead IS NULL AND repository NOT IN (
    SELECT held.repository FROM outbox AS held
    WHERE held.sink = :sink AND held.dead IS NULL AND held.due > 0 AND held.due > :now
)
ORDER BY number LIMIT :n
"""
# By the id as well: SQLite gives the number of the last row again when that row is gone.
FORGET = "DELETE FROM outbox WHERE number = :number AND id = :id"
POSTPONE = """
UPDATE outbox SET due = :due, tries = tries + 1, error = :error
WHERE number = :number AND id = :id AND dead IS NULL
"""
BURY = "UPDATE outbox SET dead = :now, due = 0, error = :error WHERE number = :number AND id = :id"

BURY_OLD = """
UPDATE outbox SET
    dead = :now, due = 0, error = CASE WHEN error = '' THEN 'not delivered in time' ELSE error END
WHERE sink = :sink AND dead IS NULL AND noted < :before
RETURNING number
"""
BURY_MORE = """
UPDATE outbox SET dead = :now, due = 0, error = 'too many waited'
WHERE number IN (
    SELECT excess.number FROM outbox AS excess
    WHERE excess.sink = :sink AND excess.dead IS NULL ORDER BY excess.number LIMIT :n
)
RETURNING number
"""
DROP_OLD = "DELETE FROM outbox WHERE sink = :sink AND dead < :before RETURNING number"
DROP_MORE = """
DELETE FROM outbox WHERE number IN (
    SELECT excess.number FROM outbox AS excess
    WHERE excess.sink = :sink AND excess.dead IS NOT NULL ORDER BY excess.number LIMIT :n
)
RETURNING number
"""

BACKLOG = """
SELECT sink, count(*) - count(dead), count(dead),
    coalesce(min(CASE WHEN dead IS NULL THEN noted END), 0),
    coalesce(min(dead), 0)
FROM outbox GROUP BY sink ORDER BY sink
"""
LIST = """
SELECT number, sink, id, event, noted, dead, tries, error FROM outbox
WHERE (CAST(:sink AS TEXT) IS NULL OR sink = :sink) AND (dead IS NOT NULL) = (:dead = 1)
ORDER BY number LIMIT :n
"""
REPLAY = """
UPDATE outbox SET dead = NULL, due = 0, tries = 0, error = '', noted = :now
WHERE dead IS NOT NULL AND (CAST(:sink AS TEXT) IS NULL OR sink = :sink)
    AND (CAST(:id AS TEXT) IS NULL OR id = :id)
RETURNING number
"""
DROP = """
DELETE FROM outbox
WHERE (:dead = 0 OR dead IS NOT NULL) AND (CAST(:sink AS TEXT) IS NULL OR sink = :sink)
    AND (CAST(:id AS TEXT) IS NULL OR id = :id)
RETURNING number
"""


class Sink(NamedTuple):
    """Who is to be told of what."""

    name: str
    kinds: frozenset[Kind]
    repositories: Patterns


class Outbox:
    """Where changes are noted, by whoever makes them. `sinks` may be others from one moment to the next."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self.sinks = tuple(sinks)
        self.noted = 0
        """How often something was, here: it grows just before that is committed."""

    def wants(self, *kinds: Kind) -> bool:
        """Whether anybody is to be told of such events: else what they tell need not be looked up."""
        return any(not sink.kinds.isdisjoint(kinds) for sink in self.sinks)

    def stir(self) -> None:
        """There is something to be delivered again."""
        self.noted += 1

    def note(self, tx: Tx, event: Event) -> None:
        """In the transaction that makes the change. Without a sink for it: nothing, at no cost."""
        sinks = [
            sink.name
            for sink in self.sinks
            if event.kind in sink.kinds and sink.repositories.matches(event.repository)
        ]
        if not sinks:
            return
        named = {"id": str(uuid.uuid4()), "kind": event.kind, "repository": event.repository}
        text = events.encode(event)
        for sink in sinks:
            tx.run(NOTE, sink=sink, event=text, now=event.at, **named)
        self.noted += 1


@dataclass(frozen=True, slots=True)
class Waiting:
    number: int
    id: str
    repository: str
    event: str
    """core.events.decode reads it."""
    noted: float
    tries: int


class Postponed(NamedTuple):
    row: Waiting
    due: float
    error: str


@dataclass(frozen=True, slots=True)
class Listed:
    number: int
    sink: str
    id: str
    event: str
    noted: float
    dead: float | None
    """When it was given up; None: it waits."""
    tries: int
    error: str
    """Why the last try failed; "": there was none."""


@dataclass(frozen=True, slots=True)
class Backlog:
    sink: str
    waiting: int
    dead: int
    oldest: float
    """When the first of the waiting ones was noted; 0: none waits."""
    oldest_dead: float
    """When the first of the dead ones was given up; 0: none was."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept, and for how long (seconds)."""

    waiting: int = 100_000
    """Of one sink; the oldest beyond it are given up."""
    dead: int = 10_000
    wait: float = 72 * 3600.0
    keep: float = 30 * 86400.0
    """What is dead for so long goes."""


class Tidied(NamedTuple):
    given_up: dict[str, int]
    """By sink."""
    dropped: dict[str, int]


class OutboxRows:
    """Raises StoreSuspect and StoreBusy; what writes, those, StoreFull, Conflict and CommitUnknown too.

    Times are seconds since the epoch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, sink: str, now: float, n: int) -> list[Waiting]:
        """Up to `n` events to be delivered now, those of one repository in their order."""
        rows = await self._database.scan(lambda tx: tx.all(WAITING, sink=sink, now=now, n=n))
        return [Waiting(*row) for row in rows]

    async def told(
        self,
        done: Sequence[Waiting],
        later: Postponed | None,
        refused: tuple[Waiting, str] | None,
        now: float,
    ) -> None:
        """What became of some: `done` was delivered, `later` is to be tried again, `refused` is given up."""

        def told(tx: Tx) -> None:
            for row in done:
                tx.run(FORGET, number=row.number, id=row.id)
            if later is not None:
                row, due, error = later
                tx.run(POSTPONE, number=row.number, id=row.id, due=due, error=error)
            if refused is not None:
                row, error = refused
                tx.run(BURY, number=row.number, id=row.id, now=now, error=error)

        await self._database.write(told)

    async def backlog(self) -> list[Backlog]:
        """Of each sink that has rows, known or not."""
        return [Backlog(*row) for row in await self._database.scan(lambda tx: tx.all(BACKLOG))]

    async def tidy(self, now: float, bounds: Bounds) -> Tidied:
        """Give up what waited too long, or is too much; let go what was dead for too long, or is too much.

        Where there is nothing of that, nothing is written: pushes note events meanwhile.
        """
        tidied = Tidied({}, {})
        for row in await self.backlog():
            if row.waiting > bounds.waiting or 0 < row.oldest < now - bounds.wait:
                tidied.given_up[row.sink] = await self._database.write(bind(_give_up, row, now, bounds))
        for row in await self.backlog():
            if row.dead > bounds.dead or 0 < row.oldest_dead < now - bounds.keep:
                tidied.dropped[row.sink] = await self._database.write(bind(_let_go, row, now, bounds))
        return tidied

    async def list(self, sink: str | None, n: int, *, dead: bool) -> list[Listed]:
        """The first `n`, of one sink or of all."""
        rows = await self._database.scan(lambda tx: tx.all(LIST, sink=sink, n=n, dead=int(dead)))
        return [Listed(*row) for row in rows]

    async def replay(self, sink: str | None, event: str | None, now: float) -> int:
        """Dead ones (`event`: that one) wait again, in their old order, with their old ids: how many."""
        rows = await self._database.write(lambda tx: tx.all(REPLAY, sink=sink, id=event, now=now))
        return len(rows)

    async def drop(self, sink: str | None, event: str | None, *, dead: bool) -> int:
        """Nobody is to be told any more; `dead`: only of what was given up."""
        rows = await self._database.write(lambda tx: tx.all(DROP, sink=sink, id=event, dead=int(dead)))
        return len(rows)

    async def lease(self, sink: str, holder: str, now: float, until: float) -> bool:
        """Deliver to it alone until then. False: another node does."""
        name = f"sink:{sink}"
        return await self._database.write(lambda tx: leases.take(tx, name, holder, now, until)) is None

    async def release(self, sink: str, holder: str) -> None:
        await self._database.write(lambda tx: leases.release(tx, f"sink:{sink}", holder))


def _give_up(row: Backlog, now: float, bounds: Bounds, tx: Tx) -> int:
    old = len(tx.all(BURY_OLD, sink=row.sink, now=now, before=now - bounds.wait))
    more = max(0, row.waiting - old - bounds.waiting)
    return old + len(tx.all(BURY_MORE, sink=row.sink, now=now, n=more))


def _let_go(row: Backlog, now: float, bounds: Bounds, tx: Tx) -> int:
    old = len(tx.all(DROP_OLD, sink=row.sink, before=now - bounds.keep))
    more = max(0, row.dead - old - bounds.dead)
    return old + len(tx.all(DROP_MORE, sink=row.sink, n=more))
