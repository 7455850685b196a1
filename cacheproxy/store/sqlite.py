"""The rows of one node: SQLite, by apsw, with its own current SQLite.

Three ways in: point reads run inline on the loop (7 microseconds; a hop to a thread costs twenty times that),
writes share a thread and its commits, scans have a thread and a connection of their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial as bind
from pathlib import Path
from typing import TypeVar

import apsw
import trio

from cacheproxy.store.connection import SQLiteTx, connect, create, meaning
from cacheproxy.store.database import Memory, Tx
from cacheproxy.store.errors import DatabaseRefused, SchemaBehind, StoreBusy, StoreSuspect
from cacheproxy.store.migrations import demand_current, migrate
from cacheproxy.store.writer import Writer

T = TypeVar("T")

SCANS = 4
"""Scans side by side: each costs a thread, and the disk does not get faster. As many connections stay open:
to open one takes a millisecond, as it reads the schema; a page of a list takes less."""

STEPS = 10_000
"""Of SQLite's machine between two looks at the clock: less than a millisecond."""

DIALECT = {
    "identity": "INTEGER PRIMARY KEY",
    "integer": "INTEGER",
    "real": "REAL",
    "bytes": "BLOB",
    "table": "STRICT",
    "keyed": "STRICT, WITHOUT ROWID",
}


class SQLite:
    """A `Database` in one file. Nobody else writes to it while it is open."""

    def __init__(
        self, path: Path, writer: Writer, reader: apsw.Connection, scanners: list[apsw.Connection]
    ) -> None:
        """`scanners`: for scans, as many as there may be at once."""
        self._path = path
        self._writer = writer
        self._read = SQLiteTx(reader)
        self._scanners = scanners
        self._scans = trio.CapacityLimiter(len(scanners))

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[SQLite]:
        """Make the file where there is none, bring its schema up to date; flush and close at the end.

        Raises DatabaseRefused, StoreBusy, StoreSuspect, OSError.
        """
        writer = Writer(await trio.to_thread.run_sync(_prepare, path))
        try:
            with ExitStack() as connections:
                reader = connections.enter_context(closing(connect(path, writes=False, busy_ms=0)))
                scanners = [connect(path, writes=False) for _ in range(SCANS)]
                connections.callback(_close, scanners)
                yield cls(path, writer, reader, scanners)
        finally:
            await writer.aclose()

    @property
    def suspect(self) -> StoreSuspect | None:
        """Why nothing is written any more, until a restart; None: all is well."""
        return self._writer.suspect

    async def read(self, fn: Callable[[Tx], T]) -> T:
        await trio.lowlevel.checkpoint()
        try:
            return fn(self._read)
        except StoreBusy:
            # Somebody repairs or copies the file from outside: wait for them, but not on the loop.
            return await self.scan(fn)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        return await self._writer.run(fn)

    async def watch(
        self, memory: Memory, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Nobody else writes."""
        memory.trust()
        task_status.started()
        await trio.sleep_forever()

    async def scan(self, fn: Callable[[Tx], T]) -> T:
        return await trio.to_thread.run_sync(bind(_scan_with, self._scanners, fn), limiter=self._scans)

    async def faults(self, within: float = math.inf) -> list[str]:
        return await trio.to_thread.run_sync(faults, self._path, within, limiter=self._scans)


class SQLiteRows:
    """The rows as they are, for whoever only looks; a daemon may be writing them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[SQLiteRows]:
        """Nothing is made and nothing is changed. Raises DatabaseRefused, StoreBusy, StoreSuspect."""
        if not await trio.to_thread.run_sync(path.exists):
            raise DatabaseRefused(f"{path} is not there: no daemon has run with this configuration")
        rows = cls(path)
        await rows.scan(_demand_current)
        yield rows

    async def scan(self, fn: Callable[[Tx], T]) -> T:
        return await trio.to_thread.run_sync(bind(_scan, self._path, fn), abandon_on_cancel=True)

    async def faults(self, within: float = math.inf) -> list[str]:
        return await trio.to_thread.run_sync(faults, self._path, within, abandon_on_cancel=True)


def faults(path: Path, within: float) -> list[str]:
    """What SQLite finds wrong with its own file. Without a limit all of it: minutes for many gigabytes."""
    connection = connect(path, writes=False)
    try:
        if within < math.inf:
            _end_at(connection, time.monotonic() + within)
            return _integrity(connection, "quick_check")
        return _integrity(connection, "integrity_check") or _orphaned(connection)
    except apsw.InterruptError:
        return []  # nothing was found so far
    except apsw.Error as error:
        if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
            return [str(error)]
        raise meaning(error) from error
    finally:
        connection.close()


def _integrity(connection: apsw.Connection, pragma: str) -> list[str]:
    return [str(text) for (text,) in connection.execute(f"PRAGMA {pragma}") if text != "ok"]


def _orphaned(connection: apsw.Connection) -> list[str]:
    return [
        f"a row of {table} ({row}) names one of {parent} that is not there"
        for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check")
    ]


def _end_at(connection: apsw.Connection, deadline: float) -> None:
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)


def _demand_current(tx: Tx) -> None:
    if not tx.all("SELECT 1 FROM sqlite_schema WHERE name = 'migration'"):
        raise SchemaBehind("the database is empty: no daemon has run with it")
    demand_current(tx)


def _prepare(path: Path) -> apsw.Connection:
    create(path)
    try:
        return _migrated(path)
    except StoreSuspect as error:
        if isinstance(error.__cause__, apsw.CorruptError):
            raise DatabaseRefused.damaged(path, str(error.__cause__)) from error
        raise


def _migrated(path: Path) -> apsw.Connection:
    connection = connect(path, writes=True)
    try:
        _in_transaction(connection, "BEGIN IMMEDIATE", lambda tx: migrate(tx, DIALECT))
    except BaseException:
        connection.close()
        raise
    return connection


def _scan_with(idle: list[apsw.Connection], fn: Callable[[Tx], T]) -> T:
    """In a thread, of which there are no more than connections."""
    connection = idle.pop()
    try:
        return _in_transaction(connection, "BEGIN", fn)
    finally:
        with suppress(apsw.Error):
            if connection.in_transaction:  # it failed, and shall see what is new the next time
                connection.execute("ROLLBACK")
        idle.append(connection)


def _close(connections: list[apsw.Connection]) -> None:
    for connection in connections:
        connection.close()


def _scan(path: Path, fn: Callable[[Tx], T]) -> T:
    connection = connect(path, writes=False)
    try:
        return _in_transaction(connection, "BEGIN", fn)
    finally:
        connection.close()


def _in_transaction(connection: apsw.Connection, begin: str, fn: Callable[[Tx], T]) -> T:
    """Foreign errors are translated; closing the connection takes back what was not committed."""
    try:
        connection.execute(begin)
        result = fn(SQLiteTx(connection))
        connection.execute("COMMIT")
    except apsw.Error as error:
        raise meaning(error) from error
    return result
