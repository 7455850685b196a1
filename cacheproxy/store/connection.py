"""Connections to SQLite: how they are set up, and what their failures mean here."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import apsw

from cacheproxy.store.database import Row
from cacheproxy.store.durable import FILE_MODE, sync_folder
from cacheproxy.store.errors import Conflict, DatabaseRefused, StoreBusy, StoreError, StoreFull, StoreSuspect

BUSY_MS = 5_000
"""How long a writer or a scan waits for another process's lock (milliseconds). The loop's reader never
waits."""

STATEMENTS = 256
"""Prepared statements kept per connection: more than there are texts."""

WAL_LIMIT = 64 << 20
"""Bytes that the write-ahead log is cut down to once a long scan has let it grow past that."""

_SETTINGS = (
    # What is in the file is data: no functions, triggers or views that somebody planted in its schema.
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
)

_FULL = frozenset({apsw.SQLITE_FULL, apsw.SQLITE_IOERR_SHMSIZE})
_MEANINGS: tuple[tuple[tuple[type[apsw.Error], ...], type[StoreError], int], ...] = (
    ((apsw.BusyError, apsw.LockedError, apsw.CantOpenError, apsw.NoMemError), StoreBusy, errno.EBUSY),
    ((apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError), StoreSuspect, errno.EIO),
)


def meaning(error: apsw.Error) -> Exception:
    """The failure in the words of this package; what only a wrong SQL text can cause stays as it is."""
    if getattr(error, "extendedresult", None) in _FULL:  # set on each, but not in apsw's stubs
        return StoreFull(errno.ENOSPC, f"no room in the database: {error}")
    if isinstance(error, apsw.ConstraintError):
        return Conflict(str(error))
    for kinds, ours, number in _MEANINGS:
        if isinstance(error, kinds):
            return ours(number, f"database: {error}")
    return error


def create(path: Path) -> None:
    """An empty, private file where there is none; SQLite gives its log the same mode. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        sync_folder(path.parent)


def connect(path: Path, *, writes: bool, busy_ms: int = BUSY_MS) -> apsw.Connection:
    """Exactly one connection of a process writes, and it alone moves the log into the file.

    Raises DatabaseRefused for a file that is not such a database, StoreBusy, StoreSuspect.
    """
    flags = apsw.SQLITE_OPEN_READWRITE if writes else apsw.SQLITE_OPEN_READONLY
    connection = None
    try:
        connection = apsw.Connection(os.fspath(path), flags=flags, statementcachesize=STATEMENTS)
        _set_up(connection, writes=writes, busy_ms=busy_ms)
    except (apsw.Error, DatabaseRefused) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, apsw.NotADBError):
            refusal = DatabaseRefused(f"{path} is not a SQLite database: move it away, or name another")
            raise refusal from error
        raise (meaning(error) if isinstance(error, apsw.Error) else error) from error
    return connection


def _set_up(connection: apsw.Connection, *, writes: bool, busy_ms: int) -> None:
    connection.set_busy_timeout(busy_ms)
    for setting, value in _SETTINGS:
        connection.config(setting, value)
    if writes:
        _demand(connection, "journal_mode", "wal", "wal")
        _demand(connection, "synchronous", "full", 2)
        connection.pragma("journal_size_limit", WAL_LIMIT)
        connection.wal_autocheckpoint(0)
    _demand(connection, "foreign_keys", "on", 1)


def _demand(connection: apsw.Connection, pragma: str, value: str, expected: str | int) -> None:
    """SQLite ignores in silence what it cannot do: a promise that rests on a setting is checked."""
    connection.pragma(pragma, value)
    actual = connection.pragma(pragma)
    if actual != expected:
        raise DatabaseRefused(
            f"SQLite has {pragma}={actual} here where {value} is needed:"
            " keep the database on a local file system"
        )


class SQLiteTx:
    """A Tx on an apsw connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, **named: object) -> None:
        self.all(sql, **named)

    def one(self, sql: str, **named: object) -> Row | None:
        rows = self.all(sql, **named)
        assert len(rows) <= 1, sql
        return rows[0] if rows else None

    def all(self, sql: str, **named: object) -> list[Row]:
        # All rows at once: a statement left half-way would hold its snapshot, and the log could not shrink.
        try:
            return self._connection.execute(sql, named).fetchall()
        except apsw.Error as error:
            raise meaning(error) from error
