from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cacheproxy import wiring
from cacheproxy.config import Storage, load
from cacheproxy.store.sqlite import SQLite
from tests.postgres import postgres_url as postgres_url


def storage(folder: Path, text: str = "") -> Storage:
    (folder / "c.toml").write_text(f'[storage]\nstate = "."\n{text}')
    return load(folder / "c.toml", {}).storage


async def test_path_is_a_sqlite_file(tmp_path: Path) -> None:
    async with wiring.open_database(storage(tmp_path)) as database:
        assert isinstance(database, SQLite)
    assert (tmp_path / "cacheproxy.db").is_file()


async def test_url_is_a_postgresql(tmp_path: Path, postgres_url: str) -> None:
    async with wiring.open_database(storage(tmp_path, f"database = '{postgres_url}'")) as database:
        row = await database.read(lambda tx: tx.one("SELECT version()"))
    assert row is not None
    assert row[0].startswith("PostgreSQL")
    assert not (tmp_path / "cacheproxy.db").exists()


def test_plain_installation_says_what_a_postgresql_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "cacheproxy.store.postgres", raising=False)
    monkeypatch.delitem(sys.modules, "cacheproxy.store.postgres_connection", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(wiring.CannotStart, match=r"install cacheproxy\[postgres\]"):
        wiring.open_database(storage(tmp_path, "database = 'postgresql://us@db/rows'"))
