"""Connections to PostgreSQL: how they are set up, and what their failures mean here."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from cacheproxy.store.database import Row
from cacheproxy.store.errors import Conflict, DatabaseRefused, StoreBusy, StoreError, StoreFull, StoreSuspect

Connection = psycopg.Connection[Row]

PARAMETERS: dict[str, str | int] = {
    "application_name": "cacheproxy",
    # Of several hosts the one that writes: a standby would refuse every record.
    "target_session_attrs": "read-write",
    # Seconds for each address; and a peer that vanished without a word is noticed within 20 s, not 2 hours.
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
"""Of libpq, where the URL does not say otherwise."""

PREPARE_AFTER = 2
"""Executions from which a connection keeps a statement's plan: the texts are few, and all come again."""

STATEMENT_SECONDS = 30
"""One statement's limit: point reads take microseconds, and a sum over millions of rows takes seconds."""

LOCK_SECONDS = 10
"""How long a row that another transaction has is waited for."""

IDLE_SECONDS = 60
"""A transaction whose daemon stands still gives its locks back."""

_SET_UP = f"""
SELECT set_config('statement_timeout', '{STATEMENT_SECONDS}s', false),
       set_config('lock_timeout', '{LOCK_SECONDS}s', false),
       set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', false)
"""

logging.getLogger("psycopg").setLevel(
    logging.CRITICAL
)  # it tells what it skips after a failure that it raises

LOST = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
"""What a connection raises that ended, or whose server has become a standby; among other things."""

_MEANINGS: tuple[tuple[tuple[type[psycopg.Error], ...], type[StoreError], int], ...] = (
    ((psycopg.errors.DiskFull, psycopg.errors.ConfigurationLimitExceeded), StoreFull, errno.ENOSPC),
    (
        (
            psycopg.errors.IoError,
            psycopg.errors.UndefinedFile,
            psycopg.errors.DataCorrupted,
            psycopg.errors.IndexCorrupted,
        ),
        StoreSuspect,
        errno.EIO,
    ),
    # Rights that were taken away may be given back.
    ((*LOST, psycopg.errors.InsufficientPrivilege), StoreBusy, errno.EBUSY),
)


def meaning(error: psycopg.Error) -> Exception:
    """The failure in the words of this package; what only a wrong SQL text can cause stays as it is."""
    if isinstance(error, psycopg.IntegrityError):
        return Conflict(told(error))
    for kinds, ours, number in _MEANINGS:
        if isinstance(error, kinds):
            return ours(number, f"database: {told(error)}")
    return error


_STATEMENT = re.compile(r"^LINE \d+:.*\n.*\^$", re.MULTILINE)
"""Where in a statement its fault is: that line of it, and a mark below."""


def told(error: psycopg.Error) -> str:
    """In one line, without our SQL. libpq tells host and user here, never a password."""
    return " ".join(_STATEMENT.sub("", str(error)).split()) or type(error).__name__


def useless(connection: Connection, error: psycopg.Error) -> bool:
    """Whether it is the connection that failed, and another one may do better."""
    return connection.closed or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)


def parameters(url: str) -> dict[str, Any]:
    """For `connect`. Raises DatabaseRefused for what libpq does not understand; it is not repeated."""
    try:
        return {**PARAMETERS, **conninfo_to_dict(url)}
    except psycopg.ProgrammingError as error:
        raise DatabaseRefused("storage.database is not a PostgreSQL URL that libpq understands") from error


def connect(parameters: dict[str, Any]) -> Connection:
    """Each statement is a transaction of its own unless BEGIN was sent. Raises psycopg.Error."""
    connection = psycopg.Connection.connect(**parameters, autocommit=True, prepare_threshold=PREPARE_AFTER)
    try:
        connection.execute(_SET_UP)
    except BaseException:
        connection.close()
        raise
    return connection


class Sessions:
    """Connections that wait for their next use. For threads; how many are out is their callers' business.

    No pool of psycopg's: that one connects again at intervals, which grow while a server is away, and whoever
    asks meanwhile waits. Here a server that is away is told at once, and used again with the first request.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self._idle: list[Connection] = []  # append and pop are whole under the interpreter's lock
        self._closed = False

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Raises psycopg.Error when none is idle and none can be made."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect(self.parameters)
        try:
            yield connection
        finally:
            self._take_back(connection)

    def forget(self) -> None:
        """Close those that are idle: where one connection ended, so did they, most likely."""
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()

    def close(self) -> None:
        self._closed = True
        self.forget()

    def _take_back(self, connection: Connection) -> None:
        if not connection.closed and connection.info.transaction_status is not TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                # Not by a statement: psycopg takes for prepared what a failed pipeline skipped, until it is
                # told like this.
                connection.rollback()
        whole = not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
        if whole and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()


_NAMES = re.compile(r"'[^']*'|%|:([a-z_]+[0-9]*)")


@lru_cache(1024)
def translate(sql: str) -> str:
    """`:name` as psycopg writes it, outside of quotes; see `database.py` for what texts may hold."""

    def one(found: re.Match[str]) -> str:
        return f"%({found[1]})s" if found[1] else found[0].replace("%", "%%")

    return _NAMES.sub(one, sql)


class PostgresTx:
    """A Tx on a connection. Raises psycopg.Error, which whoever runs the transaction translates."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, sql: str, **named: object) -> None:
        self._connection.execute(translate(sql), named)

    def one(self, sql: str, **named: object) -> Row | None:
        rows = self.all(sql, **named)
        assert len(rows) <= 1, sql
        return rows[0] if rows else None

    def all(self, sql: str, **named: object) -> list[Row]:
        return self._connection.execute(translate(sql), named).fetchall()
