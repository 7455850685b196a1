"""The rows of several nodes: PostgreSQL, by psycopg in threads (there is no driver for trio).

Transaction functions may run more than once: PostgreSQL refuses a transaction that met another one, and it is
run again then, as it is after a connection that ended before its commit was sent.
"""

from __future__ import annotations

import errno
import math
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial as bind
from typing import TypeVar

import psycopg
import trio

from cacheproxy.store.database import Memory, Tx
from cacheproxy.store.errors import CommitUnknown, DatabaseRefused, StoreBusy, StoreSuspect
from cacheproxy.store.migrations import demand_current, migrate
from cacheproxy.store.postgres_changes import follow, notify_of_changes
from cacheproxy.store.postgres_connection import (
    LOST,
    Connection,
    PostgresTx,
    Sessions,
    meaning,
    parameters,
    told,
    useless,
)

T = TypeVar("T")

READS = 8
"""In use at once. One process cannot keep more of them busy: what a round trip leaves to wait for is short,
and one thread at a time runs Python."""

WRITES = 4
"""Enough for commits to share a sync. Of 8 that record images of one repository, half meet another one and
are run again: no more is written a second than by one."""

SCANS = 2
"""Lists and sums: seldom, long, and no reason to keep the others waiting. With the one that listens, a node
has 15 connections at most: six nodes fit into PostgreSQL's usual 100."""

WAIT_SECONDS = 10.0
"""How long a connection's turn is waited for: whoever waits longer hears that the database is busy."""

TRIES = 12
"""Of a transaction that meets others, with pauses that double: about 2 s in all."""

PAUSE = 0.002
LONGEST_PAUSE = 0.25
"""Seconds before the next try; at random, or those who met would meet again."""

MIGRATION_LOCK = 0x6361636865707879
"""Advisory lock of whoever brings the schema up to date: nodes start together."""

DIALECT = {
    "identity": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "integer": "BIGINT",
    "real": "DOUBLE PRECISION",
    "bytes": "BYTEA",
    "table": "",
    "keyed": "",
}

_PATIENT = "SET LOCAL lock_timeout = '5min'; SET LOCAL statement_timeout = 0"
"""For a step of the schema over many rows, and for whoever waits until another node has done it."""

_MET = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

_PROMISES = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
"""Settings of the server, and the value that takes back what a commit promised."""

_WRITE = "BEGIN ISOLATION LEVEL SERIALIZABLE"
"""As if one were run after the other, which is what SQLite does and transaction functions are written for."""

_SCAN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class Postgres:
    """A `Database` that other daemons use at the same time."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._reads = trio.Semaphore(READS)
        self._writes = trio.Semaphore(WRITES)
        self._scans = trio.Semaphore(SCANS)
        self._threads = trio.CapacityLimiter(math.inf)  # the semaphores limit them

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Postgres]:
        """Check the server's promises, bring the schema up to date; close all connections at the end.

        Raises DatabaseRefused.
        """
        sessions = Sessions(parameters(url))
        try:
            await trio.to_thread.run_sync(_prepare, sessions)
            yield cls(sessions)
        finally:
            sessions.close()

    @classmethod
    @asynccontextmanager
    async def look(cls, url: str) -> AsyncIterator[Postgres]:
        """To look only: nothing is made and nothing is changed. Raises DatabaseRefused, StoreBusy."""
        sessions = Sessions(parameters(url))
        try:
            rows = cls(sessions)
            await rows.scan(_demand_current)
            yield rows
        finally:
            sessions.close()

    async def faults(self, within: float = math.inf) -> list[str]:
        """What takes back the server's promises. Its pages have checksums of its own."""
        return await self.scan(broken_promises)

    @property
    def suspect(self) -> StoreSuspect | None:
        """Always None: a PostgreSQL that cannot trust its disk ends itself, and comes back from its log."""
        return None

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Each query sees the last commit before it: a read of two is not one view."""
        return await self._run(self._reads, lambda connection: fn(PostgresTx(connection)))

    async def write(self, fn: Callable[[Tx], T]) -> T:
        return await self._run(self._writes, bind(_in_transaction, _WRITE, fn))

    async def watch(
        self, memory: Memory, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await follow(self._sessions.parameters, memory, task_status=task_status)

    async def scan(self, fn: Callable[[Tx], T]) -> T:
        return await self._run(self._scans, bind(_in_transaction, _SCAN, fn))

    async def _run(self, lane: trio.Semaphore, work: Callable[[Connection], T]) -> T:
        with trio.move_on_after(WAIT_SECONDS) as waiting:
            await lane.acquire()
        if waiting.cancelled_caught:
            raise StoreBusy(errno.EBUSY, f"database: no connection was free within {WAIT_SECONDS:g} s")
        try:
            return await trio.to_thread.run_sync(attempt, self._sessions, work, limiter=self._threads)
        finally:
            lane.release()


def attempt(sessions: Sessions, work: Callable[[Connection], T]) -> T:
    """Do the work on some connection, again if need be. Raises what `work` raises, in our words."""
    lost = False
    for pause in _pauses():
        connection: Connection | None = None
        try:
            with sessions.lend() as connection:
                return work(connection)
        except _MET as error:
            if pause is None:
                raise StoreBusy(errno.EBUSY, f"database: {told(error)}") from error
            time.sleep(pause)
        except LOST as error:
            # One that waited may have ended long ago; a new one that ends is news.
            if lost or connection is None or not useless(connection, error):
                raise meaning(error) from error
            lost = True
            sessions.forget()
        except psycopg.Error as error:
            raise meaning(error) from error
    raise AssertionError("the last pause is None")


def _pauses() -> list[float | None]:
    doubling = [min(LONGEST_PAUSE, PAUSE * 2**n) * random.uniform(0.5, 1) for n in range(TRIES)]  # noqa: S311
    return [*doubling, None]


def _in_transaction(begin: str, fn: Callable[[Tx], T], connection: Connection) -> T:
    """What is not committed is rolled back by `Sessions`.

    Statements whose rows nobody asks for are not waited for one by one: an image costs three round trips.
    """
    with connection.pipeline() as pipeline:
        connection.execute(begin)
        result = fn(PostgresTx(connection))
        pipeline.sync()  # what failed has failed before the commit is sent
        try:
            ended = connection.execute("COMMIT")
            pipeline.sync()
        except LOST as error:
            if connection.closed:
                text = f"database: the connection ended during a commit: {told(error)}"
                raise CommitUnknown(errno.EIO, text) from error
            raise
    # The answer to COMMIT in a transaction that has failed before is ROLLBACK, and no error.
    assert ended.statusmessage == "COMMIT", ended.statusmessage
    return result


def _prepare(sessions: Sessions) -> None:
    try:
        with sessions.lend() as connection:
            _demand_promises(connection)
            connection.execute("BEGIN")
            connection.execute(_PATIENT)
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            migrate(_Migrating(connection), DIALECT)
            notify_of_changes(connection)
            connection.execute("COMMIT")
    except psycopg.Error as error:  # whatever it is, at the start somebody has to look
        raise DatabaseRefused(f"PostgreSQL cannot be used: {told(error)}") from error


def _demand_promises(connection: Connection) -> None:
    for broken in broken_promises(PostgresTx(connection)):
        raise DatabaseRefused(broken)


def broken_promises(tx: Tx) -> list[str]:
    """Settings by which commits may be lost, each with what to do."""
    settings = {name: tx.one("SELECT current_setting(:name)", name=name) for name in _PROMISES}
    return [
        f"this PostgreSQL has {name} = {broken}, and would lose in a crash what it said was committed: set"
        f" {name} = on"
        for name, broken in _PROMISES.items()
        if settings[name] == (broken,)
    ]


def _demand_current(tx: Tx) -> None:
    if tx.one("SELECT to_regclass('migration')") == (None,):
        raise DatabaseRefused("the database is empty: no daemon has run with it")
    demand_current(tx)


class _Migrating(PostgresTx):
    """Names are compared by their bytes, whatever the database's own collation is: as SQLite does, and as
    the lists of the distribution API are ordered."""

    def run(self, sql: str, **named: object) -> None:
        super().run(re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', sql), **named)
