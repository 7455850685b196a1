from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import apsw
import pytest
import trio

from cacheproxy.store import writer as writers
from cacheproxy.store.connection import connect, create
from cacheproxy.store.database import Tx
from cacheproxy.store.errors import Conflict, StoreBusy, StoreFull, StoreSuspect
from cacheproxy.store.writer import Writer


class Gate:
    """A connection whose COMMIT can be held back, counted, or made to fail."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.commits = 0
        self.statements = 0
        self.fail: Exception | None = None
        self.fail_checkpoint: Exception | None = None
        self.held = threading.Event()
        """Set once a COMMIT waits."""
        self.open = threading.Event()
        self.open.set()

    def execute(self, sql: str, *args: Any) -> Any:
        self.statements += 1
        if sql == "COMMIT":
            self.commits += 1
            self.held.set()
            assert self.open.wait(10)
            if self.fail is not None:
                raise self.fail
        return self._connection.execute(sql, *args)

    def wal_checkpoint(self, **options: Any) -> Any:
        if self.fail_checkpoint is not None:
            raise self.fail_checkpoint
        return self._connection.wal_checkpoint(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.db"


@pytest.fixture
def gate(path: Path) -> Gate:
    create(path)
    connection = connect(path, writes=True, busy_ms=20)
    connection.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB)")
    return Gate(connection)


@pytest.fixture
async def writer(gate: Gate) -> AsyncIterator[Writer]:
    writer = Writer(cast("apsw.Connection", gate))
    yield writer
    gate.open.set()
    await writer.aclose()


def insert(x: int) -> Any:
    def fn(tx: Tx) -> int:
        tx.run("INSERT INTO t (x) VALUES (:x)", x=x)
        return x * 10

    return fn


def rows(path: Path) -> list[int]:
    """What another connection sees: what is committed."""
    reader = connect(path, writes=False)
    found = [x for (x,) in reader.execute("SELECT x FROM t ORDER BY x")]
    reader.close()
    return found


def file_size(path: Path) -> int:
    return path.stat().st_size


async def held(gate: Gate) -> None:
    with trio.fail_after(30):
        await trio.to_thread.run_sync(gate.held.wait, 5)


async def test_result_comes_back_and_is_committed(writer: Writer, path: Path) -> None:
    assert await writer.run(insert(4)) == 40
    assert rows(path) == [4]


async def test_result_waits_for_the_commit(writer: Writer, gate: Gate, path: Path) -> None:
    gate.open.clear()
    results: list[int] = []

    async def write() -> None:
        results.append(await writer.run(insert(1)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await held(gate)
        await trio.sleep(0.02)
        assert results == []
        assert rows(path) == []
        gate.open.set()
    assert results == [10]


async def test_what_is_queued_during_a_commit_shares_the_next(writer: Writer, gate: Gate, path: Path) -> None:
    gate.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, insert(0))
        await held(gate)
        for x in range(1, 50):
            nursery.start_soon(writer.run, insert(x))
        await trio.testing.wait_all_tasks_blocked()
        gate.open.set()
    assert gate.commits == 2
    assert rows(path) == list(range(50))


async def test_failing_job_takes_back_its_own_writes_only(writer: Writer, gate: Gate, path: Path) -> None:
    def fails(tx: Tx) -> None:
        tx.run("INSERT INTO t (x) VALUES (100)")
        raise LookupError("not so")

    failures: list[Exception] = []

    async def failing() -> None:
        try:
            await writer.run(fails)
        except LookupError as error:
            failures.append(error)

    gate.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, insert(0))
        await held(gate)
        nursery.start_soon(writer.run, insert(1))
        nursery.start_soon(failing)
        nursery.start_soon(writer.run, insert(2))
        await trio.testing.wait_all_tasks_blocked()
        gate.open.set()
    assert gate.commits == 2
    assert rows(path) == [0, 1, 2]
    assert len(failures) == 1


async def test_refused_row_is_a_conflict_of_its_job(writer: Writer, path: Path) -> None:
    await writer.run(insert(1))
    with pytest.raises(Conflict):
        await writer.run(insert(1))
    await writer.run(insert(2))
    assert rows(path) == [1, 2]


async def test_failed_commit_fails_all_its_jobs_and_writes_nothing(
    writer: Writer, gate: Gate, path: Path
) -> None:
    failures: list[BaseException] = []

    async def write(x: int) -> None:
        try:
            await writer.run(insert(x))
        except StoreSuspect as error:
            failures.append(error)

    gate.open.clear()
    gate.fail = apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
    async with trio.open_nursery() as nursery:
        for x in range(10):
            nursery.start_soon(write, x)
        await held(gate)
        gate.open.set()
    assert len(failures) == 10
    assert len({id(failure) for failure in failures}) == 10
    assert rows(path) == []


async def test_failed_sync_is_never_tried_again(writer: Writer, gate: Gate, path: Path) -> None:
    gate.fail = apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
    with pytest.raises(StoreSuspect):
        await writer.run(insert(1))
    gate.fail = None
    before = gate.statements
    with pytest.raises(StoreSuspect):
        await writer.run(insert(2))
    assert gate.statements == before
    assert rows(path) == []


async def test_full_disk_passes_when_there_is_room_again(writer: Writer, gate: Gate, path: Path) -> None:
    gate.execute("PRAGMA max_page_count = 4")
    with pytest.raises(StoreFull):
        await writer.run(lambda tx: tx.run("INSERT INTO t (y) VALUES (:y)", y=b"x" * 100_000))
    gate.execute("PRAGMA max_page_count = 4000")
    await writer.run(insert(2))
    assert rows(path) == [2]


async def test_lock_held_elsewhere_is_busy_and_passes(writer: Writer, path: Path) -> None:
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        await writer.run(insert(1))
    other.execute("ROLLBACK")
    other.close()
    await writer.run(insert(2))
    assert rows(path) == [2]


async def test_cancelled_wait_ends_at_once_and_the_write_happens(
    writer: Writer, gate: Gate, path: Path
) -> None:
    gate.open.clear()
    with trio.move_on_after(0.02) as scope:
        await writer.run(insert(1))
    assert scope.cancelled_caught
    gate.open.set()
    await writer.run(insert(2))
    assert rows(path) == [1, 2]


async def test_whatever_ends_a_job_its_caller_hears_of_it(writer: Writer, path: Path) -> None:
    class Odd(BaseException):
        pass

    def fn(tx: Tx) -> None:
        tx.run("INSERT INTO t (x) VALUES (1)")
        raise Odd

    with pytest.raises(Odd):
        await writer.run(fn)
    await writer.run(insert(2))
    assert rows(path) == [2]


async def test_close_commits_what_is_queued_even_when_cancelled(gate: Gate, path: Path) -> None:
    writer = Writer(cast("apsw.Connection", gate))
    gate.open.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, insert(0))
        await held(gate)
        for x in range(1, 20):
            nursery.start_soon(writer.run, insert(x))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(writer.aclose)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        gate.open.set()
    assert rows(path) == list(range(20))
    with pytest.raises(StoreSuspect, match="closed"):
        await writer.run(insert(50))


async def test_close_does_not_wait_for_ever_for_a_disk(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "CLOSE_SECONDS", 0.05)
    writer = Writer(cast("apsw.Connection", gate))
    gate.open.clear()
    with trio.move_on_after(0.02):
        await writer.run(insert(1))
    with pytest.raises(StoreSuspect, match="did not end"):
        await writer.aclose()
    gate.open.set()
    await trio.to_thread.run_sync(writer._thread.join)


async def test_log_is_moved_into_the_file_once_it_is_long(writer: Writer, path: Path) -> None:
    def much(tx: Tx) -> None:
        tx.run("INSERT INTO t (y) VALUES (:y)", y=b"x" * (writers.CHECKPOINT_PAGES * 4096))

    size = file_size(path)
    await writer.run(insert(-3))
    await writer.run(insert(-2))
    assert file_size(path) == size
    await writer.run(much)
    await writer.run(insert(5))  # begins after the checkpoint
    assert file_size(path) > writers.CHECKPOINT_PAGES * 4096


@pytest.mark.parametrize(
    ("code", "suspect"),
    [(apsw.SQLITE_IOERR_FSYNC, True), (apsw.SQLITE_BUSY, False), (apsw.SQLITE_FULL, False)],
)
async def test_log_that_cannot_be_moved_is_suspect_only_where_the_disk_fails(
    writer: Writer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    suspect: bool,
) -> None:
    monkeypatch.setattr(writers, "CHECKPOINT_PAGES", 1)
    gate.fail_checkpoint = apsw.exception_for(code)
    await writer.run(insert(1))
    if suspect:
        with pytest.raises(StoreSuspect):
            await writer.run(insert(2))
    else:
        await writer.run(insert(2))
