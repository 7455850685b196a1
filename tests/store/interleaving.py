"""Two transactions that meet: one of them stops before a statement while the other one runs."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from cacheproxy.store.database import Database, Row, Tx

T = TypeVar("T")
Step = Callable[[Database], Awaitable[Any]]

LONG = 0.08
"""Seconds after which the other one is believed to wait for a lock of the first."""


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

    def wait(self, seconds: float) -> None:
        """Blocking: until it may go on, or so long."""
        self._go.wait(seconds)

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
            await trio.to_thread.run_sync(paused.wait, LONG)
            paused.go()
    return said["first"], said["second"], met
