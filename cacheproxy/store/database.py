"""What the rows ask of a database, whichever it is.

Rules for SQL texts, so that one text runs on SQLite and on PostgreSQL: parameters are `:name`; no `%` and no
`::` (CAST(x AS y) instead); ON CONFLICT and RETURNING are fine; nothing relies on the order of rows without
ORDER BY.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import trio

from cacheproxy.store.errors import CommitUnknown, StoreBusy, StoreSuspect

T = TypeVar("T")

Row = tuple[Any, ...]


class Tx(Protocol):
    """One transaction, as a transaction function sees it. Parameters are given by name."""

    def run(self, sql: str, **named: object) -> None: ...

    def one(self, sql: str, **named: object) -> Row | None:
        """The only row; None when there is none. For queries that have no more than one."""
        ...

    def all(self, sql: str, **named: object) -> list[Row]: ...


class Memory(Protocol):
    """What is kept in memory of the rows."""

    def clear(self) -> None:
        """Something changed."""
        ...

    def doubt(self) -> None:
        """An account, or what somebody may do, changed."""
        ...

    def trust(self) -> None:
        """From now on `clear` and `doubt` are called for every change."""
        ...

    def distrust(self) -> None:
        """They are not called any more: keep nothing, look at the rows."""
        ...


class Database(Protocol):
    """Transaction functions are plain and short, and do nothing but SQL: they may run in another thread, and
    more than once."""

    @property
    def suspect(self) -> StoreSuspect | None:
        """Why nothing is written any more, until a restart; None: all is well."""
        ...

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """For point reads by key. Raises StoreSuspect, StoreBusy."""
        ...

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Returns once what was written is durable. Raises what `fn` raises, and nothing is written then.

        Raises StoreSuspect, StoreFull, StoreBusy, Conflict, CommitUnknown. Cancelled while waiting, it may
        still be written.
        """
        ...

    async def watch(
        self, memory: Memory, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled, let `memory` know of what other daemons change: a tag moved, something forgotten,
        an account revoked.

        `started` once `memory` is right.
        """
        ...

    async def scan(self, fn: Callable[[Tx], T]) -> T:
        """For lists, sums and sweeps: one consistent view, beside everything else. Raises as `read`."""
        ...

    async def faults(self, within: float = math.inf) -> list[str]:
        """What the database itself finds wrong with it, in so many seconds. Raises as `scan`."""
        ...


async def settle(database: Database, fn: Callable[[Tx], T]) -> T:
    """A write that may be done twice: what the first one left, the second one finds, and says the same.

    So when nobody knows whether it was done, it is done again. Raises as `Database.write`.
    """
    try:
        return await database.write(fn)
    except CommitUnknown as unknown:
        try:
            return await database.write(fn)
        except StoreBusy:  # it says that nothing was written, which is true of the second time only
            raise unknown from None
