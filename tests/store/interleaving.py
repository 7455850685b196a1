"""Two transactions that meet: one of them stops before a statement while the other one runs."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from cacheproxy.store.database import Database, Row, Tx

T = TypeVar("T")
Step = Callable[[Database], Awaitable[Any]]

LONG = 5.0
"""Seconds after which the first one goes on, whatever the other one does."""

LOOK_EVERY = 0.002

WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Paused:
    """A `Database` whose writes stop before their statement number `at`, once."""

    def __init__(self, database: Database, at: int) -> None:
        self._database = database
        self._left = at
        self._go = threading.Event()
        self._trio = trio.lowlevel.current_trio_token()
        self.reached = trio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        return await self._database.write(lambda tx: fn(_Counted(tx, self)))

    def go(self) -> None:
        self._go.set()

    @property
    def gone_on(self) -> bool:
        return self._go.is_set()

    def step(self, tx: Tx) -> None:
        """In the database's thread."""
        self._left -= 1
        if self._left == -1:
            tx.one("SELECT 1")  # what was sent before has been done
            self._trio.run_sync_soon(self.reached.set)
            assert self._go.wait(20)


class _Counted:
    def __init__(self, tx: Tx, paused: Paused) -> None:
        self._tx = tx
        self._paused = paused

    def run(self, sql: str, **named: object) -> None:
        self._paused.step(self._tx)
        self._tx.run(sql, **named)

    def one(self, sql: str, **named: object) -> Row | None:
        self._paused.step(self._tx)
        return self._tx.one(sql, **named)

    def all(self, sql: str, **named: object) -> list[Row]:
        self._paused.step(self._tx)
        return self._tx.all(sql, **named)


async def interleave(database: Database, first: Step, second: Step, at: int) -> tuple[Any, Any, bool]:
    """What both said, and whether the first one had so many statements."""
    paused: Any = Paused(database, at)
    said: dict[str, Any] = {}
    ended = trio.Event()

    async def run_first() -> None:
        said["first"] = await first(paused)
        paused.reached.set()
        ended.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_first)
            await paused.reached.wait()
            met = not ended.is_set()

            async def run_second() -> None:
                said["second"] = await second(database)
                paused.go()

            nursery.start_soon(run_second)
            with trio.move_on_after(LONG):
                while not paused.gone_on and not await _waits(database):
                    await trio.sleep(LOOK_EVERY)
            paused.go()
    return said["first"], said["second"], met


async def _waits(database: Database) -> bool:
    """Whether somebody waits for a lock, in PostgreSQL: nobody but the second one does."""
    ((waiting,),) = await database.scan(lambda tx: tx.all(WAITING))
    return bool(waiting)
