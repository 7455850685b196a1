from __future__ import annotations

import stat
from pathlib import Path

import apsw
import pytest

from cacheproxy.store.connection import SQLiteTx, connect, create, meaning
from cacheproxy.store.errors import Conflict, DatabaseRefused, StoreBusy, StoreFull, StoreSuspect
from tests.store.conftest import open_descriptors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.db"
    create(path)
    return path


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        (apsw.SQLITE_FULL, StoreFull),
        (apsw.SQLITE_IOERR_SHMSIZE, StoreFull),
        (apsw.SQLITE_IOERR_FSYNC, StoreSuspect),
        (apsw.SQLITE_IOERR_WRITE, StoreSuspect),
        (apsw.SQLITE_CORRUPT, StoreSuspect),
        (apsw.SQLITE_READONLY, StoreSuspect),
        (apsw.SQLITE_BUSY, StoreBusy),
        (apsw.SQLITE_BUSY_RECOVERY, StoreBusy),
        (apsw.SQLITE_CANTOPEN, StoreBusy),
        (apsw.SQLITE_CONSTRAINT_FOREIGNKEY, Conflict),
        (apsw.SQLITE_CONSTRAINT_CHECK, Conflict),
    ],
)
def test_failures_of_sqlite_have_our_names(code: int, ours: type[Exception]) -> None:
    error = apsw.exception_for(code)
    assert isinstance(error, apsw.Error)
    assert type(meaning(error)) is ours


def test_wrong_sql_stays_what_it_is(path: Path) -> None:
    connection = connect(path, writes=True)
    with pytest.raises(apsw.SQLError):
        SQLiteTx(connection).run("SELEKT 1")
    connection.close()


def test_file_and_its_log_are_private(path: Path) -> None:
    connection = connect(path, writes=True)
    SQLiteTx(connection).run("CREATE TABLE t (x INTEGER)")
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert (path.parent / "rows.db-wal").exists()
    connection.close()


def test_creating_leaves_an_existing_file_alone(path: Path) -> None:
    path.write_bytes(b"something")
    create(path)
    assert path.read_bytes() == b"something"


def test_writer_syncs_each_commit(path: Path) -> None:
    connection = connect(path, writes=True)
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("synchronous") == 2
    connection.close()


@pytest.mark.parametrize("writes", [True, False])
def test_foreign_keys_hold_on_every_connection(path: Path, writes: bool) -> None:
    connect(path, writes=True).close()
    connection = connect(path, writes=writes)
    assert connection.pragma("foreign_keys") == 1
    connection.close()


def test_reader_cannot_write(path: Path) -> None:
    writer = connect(path, writes=True)
    SQLiteTx(writer).run("CREATE TABLE t (x INTEGER)")
    reader = connect(path, writes=False)
    with pytest.raises(StoreSuspect, match="readonly"):
        SQLiteTx(reader).run("INSERT INTO t VALUES (1)")
    reader.close()
    writer.close()


def test_planted_trigger_and_view_do_nothing(path: Path) -> None:
    stranger = apsw.Connection(str(path))
    stranger.execute("CREATE TABLE t (x INTEGER)")
    stranger.execute("CREATE TRIGGER evil AFTER INSERT ON t BEGIN DELETE FROM t; END")
    stranger.execute("CREATE VIEW v AS SELECT x FROM t")
    stranger.close()
    connection = connect(path, writes=True)
    tx = SQLiteTx(connection)
    tx.run("INSERT INTO t VALUES (:x)", x=1)
    assert tx.all("SELECT x FROM t") == [(1,)]
    with pytest.raises(apsw.SQLError):
        tx.all("SELECT x FROM v")
    connection.close()


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"this is not a database, but long enough to look like one" * 100)
    before = open_descriptors()
    with pytest.raises(DatabaseRefused, match="not a SQLite database"):
        connect(path, writes=True)
    assert open_descriptors() == before


def test_database_without_a_log_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network share: SQLite answers with the mode it stays in, and no error."""
    real = apsw.Connection.pragma

    def no_wal(connection: apsw.Connection, name: str, value: object = None) -> object:
        if name == "journal_mode":
            return "delete"
        return real(connection, name) if value is None else real(connection, name, value)

    class Share(apsw.Connection):
        pragma = no_wal  # type: ignore[assignment]

    monkeypatch.setattr(apsw, "Connection", Share)
    with pytest.raises(DatabaseRefused, match="local file system"):
        connect(path, writes=True)


def test_values_are_bound_and_never_text(path: Path) -> None:
    connection = connect(path, writes=True)
    tx = SQLiteTx(connection)
    tx.run("CREATE TABLE t (x TEXT, y BLOB)")
    tx.run("INSERT INTO t VALUES (:x, :y)", x="'); DROP TABLE t; --", y=b"\0\xff")
    assert tx.one("SELECT x, y FROM t") == ("'); DROP TABLE t; --", b"\0\xff")
    assert tx.one("SELECT x FROM t WHERE x = :x", x="none") is None
    connection.close()


def test_forgotten_parameter_is_an_error(path: Path) -> None:
    connection = connect(path, writes=True)
    with pytest.raises(KeyError):
        SQLiteTx(connection).one("SELECT :x")
    connection.close()


def test_one_leaves_no_statement_open(path: Path) -> None:
    """An open one would pin the log."""
    connection = connect(path, writes=True)
    tx = SQLiteTx(connection)
    tx.run("CREATE TABLE t (x INTEGER)")
    tx.run("INSERT INTO t VALUES (1)")
    assert tx.one("SELECT x FROM t") == (1,)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert (path.parent / "rows.db-wal").stat().st_size == 0
    connection.close()
