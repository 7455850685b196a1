"""That what is left is seen, and what SQLite keeps back is not taken for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.faults import remains
from tests.faults.remains import Remains


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "SETTLED_WITHIN", 0.05)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A database that somebody has open."""
    path = tmp_path / "cacheproxy.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE a (b)")
        yield path


def looking(file: Path) -> apsw.Connection:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    connection.execute("SELECT * FROM a").fetchall()
    return connection


async def test_a_connection_that_was_closed_is_not_left(file: Path) -> None:
    before = Remains(file.parent)
    looking(file).close()
    await before.settled()


async def test_a_connection_that_is_open_is_left(file: Path) -> None:
    before = Remains(file.parent)
    with closing(looking(file)), pytest.raises(AssertionError, match=r"cacheproxy\.db-wal"):
        await before.settled()


async def test_a_file_that_is_open_is_left(file: Path) -> None:
    before = Remains(file.parent)
    with (file.parent / "a").open("w"), pytest.raises(AssertionError):
        await before.settled()


async def test_a_database_that_nobody_has_open_is_left_when_its_file_is(tmp_path: Path) -> None:
    before = Remains(tmp_path)
    with (tmp_path / "cacheproxy.db").open("w"), pytest.raises(AssertionError):
        await before.settled()
