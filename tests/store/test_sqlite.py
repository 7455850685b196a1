from __future__ import annotations

import stat
import threading
import time
from pathlib import Path

import apsw
import pytest
import trio

from cacheproxy.store import sqlite
from cacheproxy.store.connection import create
from cacheproxy.store.database import Tx
from cacheproxy.store.errors import DatabaseRefused, StoreBusy
from cacheproxy.store.queries import ADD_REPOSITORY
from cacheproxy.store.sqlite import SCANS, SQLite, SQLiteRows
from tests.store.conftest import open_descriptors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.db"


def thread(_: Tx) -> int:
    return threading.get_ident()


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_reads_run_on_the_loop_and_scans_and_writes_beside_it(path: Path) -> None:
    async with SQLite.open(path) as database:
        here = threading.get_ident()
        assert await database.read(thread) == here
        assert await database.scan(thread) != here
        assert await database.write(thread) != here


async def test_read_that_meets_a_lock_waits_beside_the_loop(path: Path) -> None:
    attempts: list[int] = []

    def busy_at_first(_: Tx) -> str:
        attempts.append(threading.get_ident())
        if len(attempts) == 1:
            raise StoreBusy(0, "somebody repairs it")
        return "read"

    async with SQLite.open(path) as database:
        assert await database.read(busy_at_first) == "read"
    assert attempts[0] == threading.get_ident()
    assert attempts[1] != threading.get_ident()


async def test_scan_sees_one_state_of_all_tables(path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def count(tx: Tx) -> int:
        row = tx.one("SELECT count(*) FROM trash")
        assert row is not None
        return int(row[0])

    def twice(tx: Tx) -> tuple[int, int]:
        first = count(tx)
        inside.set()
        assert go_on.wait(5)
        return first, count(tx)

    seen: list[tuple[int, int]] = []
    async with SQLite.open(path) as database, trio.open_nursery() as nursery:

        async def scan() -> None:
            seen.append(await database.scan(twice))

        nursery.start_soon(scan)
        await trio.to_thread.run_sync(inside.wait, 5)
        await database.write(lambda tx: tx.run("INSERT INTO trash (path, not_before) VALUES ('x', 1)"))
        assert await database.read(count) == 1
        go_on.set()
    assert seen == [(0, 0)]


async def test_a_scan_that_failed_leaves_no_old_state_to_the_next(path: Path) -> None:
    def fails(tx: Tx) -> None:
        tx.all("SELECT * FROM repository")
        raise LookupError

    row = {"name": "a", "upstream": "u", "now": 1.0, "settings": "{}"}
    async with SQLite.open(path) as database:
        for _ in range(SCANS):
            with pytest.raises(LookupError):
                await database.scan(fails)
        await database.write(lambda tx: tx.run(ADD_REPOSITORY, **row))
        for _ in range(SCANS):
            assert await database.scan(lambda tx: tx.all("SELECT name FROM repository")) == [("a",)]


async def test_more_scans_than_there_may_be_at_once_take_turns(path: Path) -> None:
    heard = []

    async def scan(database: SQLite) -> None:
        heard.append(await database.scan(lambda tx: tx.all("SELECT 1")))

    async with SQLite.open(path) as database, trio.open_nursery() as nursery:
        for _ in range(3 * SCANS):
            nursery.start_soon(scan, database)
    assert heard == [[(1,)]] * 3 * SCANS


async def test_end_leaves_one_file_and_no_descriptor(path: Path) -> None:
    before = open_descriptors()
    async with SQLite.open(path) as database:
        await database.write(lambda tx: tx.run("INSERT INTO trash (path, not_before) VALUES ('x', 1)"))
        await database.scan(thread)
    assert open_descriptors() == before
    assert modes(path.parent) == {"rows.db": 0o600}


async def test_rows_are_there_again_after_reopening(path: Path) -> None:
    async with SQLite.open(path) as database:
        await database.write(lambda tx: tx.run("INSERT INTO trash (path, not_before) VALUES ('x', 1)"))
    async with SQLite.open(path) as database:
        assert await database.read(lambda tx: tx.all("SELECT path FROM trash")) == [("x",)]


async def test_database_of_a_newer_version_is_refused_and_untouched(path: Path) -> None:
    async with SQLite.open(path) as database:
        await database.write(
            lambda tx: tx.run("INSERT INTO migration (number, checksum) VALUES (99, 'of the future')")
        )
    before, descriptors = content(path), open_descriptors()
    with pytest.raises(DatabaseRefused, match="newer"):
        async with SQLite.open(path):
            pass
    assert open_descriptors() == descriptors
    assert content(path) == before


async def test_locked_database_is_busy_at_the_opening(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLite.open(path):
        pass
    monkeypatch.setattr("cacheproxy.store.connection.connect.__kwdefaults__", {"busy_ms": 10})
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        async with SQLite.open(path):
            pass
    other.close()


async def test_failure_inside_the_block_closes_all(path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(LookupError):
        async with SQLite.open(path):
            raise LookupError
    assert open_descriptors() == before


async def test_folder_that_is_not_there_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with SQLite.open(path / "rows.db"):
            pass


async def test_a_whole_database_has_no_faults(path: Path) -> None:
    async with SQLite.open(path) as database:
        assert await database.faults() == []
        assert await database.faults(10.0) == []
        async with SQLiteRows.open(path) as rows:
            assert await rows.faults() == []


async def test_damage_is_told_by_either_check(path: Path) -> None:
    await fill(path)
    spoil(path)
    async with SQLite.open(path) as database:
        assert await database.faults()
        assert await database.faults(10.0)


async def test_a_check_that_has_no_time_left_has_found_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "STEPS", 10)
    await fill(path)
    spoil(path)
    async with SQLite.open(path) as database:
        assert await database.faults(-1.0) == []


async def test_a_row_that_names_one_that_is_gone_is_a_fault(path: Path) -> None:
    async with SQLite.open(path):
        pass
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO link (repository, digest, size) VALUES (7, 'x', 1)")
    connection.close()
    async with SQLiteRows.open(path) as rows:
        assert sorted(await rows.faults()) == [
            "a row of link (None) names one of blob that is not there",
            "a row of link (None) names one of repository that is not there",
        ]


@pytest.mark.parametrize("byte", [0, 100])
async def test_a_file_that_is_damaged_at_its_head_is_refused_with_its_name(byte: int, path: Path) -> None:
    async with SQLite.open(path):
        pass
    with path.open("r+b") as file:
        file.seek(byte)
        file.write(b"\xff" * 500)
    with pytest.raises(DatabaseRefused, match=str(path)):
        async with SQLite.open(path):
            pass


async def test_to_look_makes_and_changes_nothing(path: Path) -> None:
    with pytest.raises(DatabaseRefused, match="is not there"):
        async with SQLiteRows.open(path):
            pass
    assert modes(path.parent) == {}
    create(path)
    with pytest.raises(DatabaseRefused, match="is empty"):
        async with SQLiteRows.open(path):
            pass
    assert content(path) == b""


async def test_to_look_takes_this_versions_schema(path: Path) -> None:
    async with SQLite.open(path) as database:
        await database.write(lambda tx: tx.run("DELETE FROM migration WHERE number = 3"))
        with pytest.raises(DatabaseRefused, match="start its daemon once"):
            async with SQLiteRows.open(path):
                pass


async def fill(path: Path) -> None:
    """Some pages."""
    async with SQLite.open(path) as database:

        def write(tx: Tx) -> None:
            for number in range(2000):
                tx.run("INSERT INTO trash (path, not_before) VALUES (:path, 1)", path=f"{number:060}")

        await database.write(write)


def spoil(path: Path) -> None:
    """The heads of its last pages."""
    with path.open("r+b") as file:
        for page in range(-10, -1):
            file.seek(page * 4096, 2)
            file.write(b"\xff" * 16)


async def test_whoever_stops_looking_waits_for_no_disk(tmp_path: Path) -> None:
    async with SQLite.open(tmp_path / "rows.db"):
        pass
    reached, ended = trio.Event(), threading.Event()

    def hang(tx: Tx) -> None:
        trio.from_thread.run_sync(reached.set)
        ended.wait(10)

    async with SQLiteRows.open(tmp_path / "rows.db") as rows, trio.open_nursery() as nursery:
        nursery.start_soon(rows.scan, hang)
        await reached.wait()
        began = time.monotonic()
        nursery.cancel_scope.cancel()
    ended.set()
    assert time.monotonic() - began < 5
