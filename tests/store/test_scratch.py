from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import pytest
import trio

from cacheproxy.store import scratch as scratches
from cacheproxy.store.scratch import BytesDisk, Scratch
from tests.store.conftest import open_descriptors

# What protocol 0 of pickle means by "call os.mkdir(path)": written out, for nothing here may import pickle.
BOMB = "cposix\nmkdir\n(V{path}\ntR."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def scratch(path: Path) -> Iterator[Scratch]:
    scratch = Scratch(path)
    yield scratch
    scratch.close()


@pytest.fixture
def crater(tmp_path: Path) -> Path:
    """What is there once planted code has run."""
    return tmp_path / "crater"


@pytest.fixture
def bomb(crater: Path) -> bytes:
    return BOMB.format(path=crater).encode()


def tamper(path: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(path / "cache.db", isolation_level=None)) as connection:
        changed = connection.execute(sql, values)
        assert changed.rowcount != 0, "nothing was planted"


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def scramble(path: Path) -> None:
    for file in path.iterdir():
        file.write_bytes(b"\xff" * 40_000)


def exists(path: Path) -> bool:
    return path.exists()


async def usable(scratch: Scratch) -> None:
    await scratch.put("heal", b"", 60)  # may be what finds the damage
    await scratch.put("healed", b"yes", 60)
    assert scratch.get("healed") == b"yes"


async def test_value_comes_back(scratch: Scratch) -> None:
    await scratch.put("key", b"value\0\xff", 60)
    assert scratch.get("key") == b"value\0\xff"


async def test_empty_value_is_a_value(scratch: Scratch) -> None:
    await scratch.put("key", b"", 60)
    assert scratch.get("key") == b""
    assert scratch.get("another") is None


async def test_later_value_replaces_the_earlier(scratch: Scratch) -> None:
    await scratch.put("key", b"1", 60)
    await scratch.put("key", b"2", 60)
    assert scratch.get("key") == b"2"


async def test_value_is_gone_after_its_seconds(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    await scratch.put("key", b"value", 10)
    monkeypatch.setattr("diskcache.core.time.time", lambda: now + 9)
    assert scratch.get("key") == b"value"
    monkeypatch.setattr("diskcache.core.time.time", lambda: now + 11)
    assert scratch.get("key") is None


async def test_dropped_value_is_gone(scratch: Scratch) -> None:
    await scratch.put("key", b"value", 60)
    await scratch.drop("key")
    assert scratch.get("key") is None
    await scratch.drop("key")


async def test_values_outlive_the_process(path: Path, scratch: Scratch) -> None:
    await scratch.put("key", b"value", 60)
    scratch.close()
    again = Scratch(path)
    assert again.get("key") == b"value"
    again.close()


async def test_many_tasks_may_put_at_once(scratch: Scratch) -> None:
    async with trio.open_nursery() as nursery:
        for n in range(30):
            nursery.start_soon(scratch.put, f"key {n}", b"%d" % n, 60)
    assert [scratch.get(f"key {n}") for n in range(30)] == [b"%d" % n for n in range(30)]


async def test_size_is_limited_and_the_oldest_go_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratches._SETTINGS, "size_limit", 1 << 20)
    scratch = Scratch(path)
    for n in range(40):
        await scratch.put(f"key {n}", b"x" * 100_000, 60)
    assert sum(scratch.get(f"key {n}") is not None for n in range(40)) < 15
    assert scratch.get("key 0") is None
    assert scratch.get("key 39") is not None
    scratch.close()


async def test_closing_leaves_no_descriptor(path: Path) -> None:
    before = open_descriptors()
    scratch = Scratch(path)
    await scratch.put("key", b"value", 60)
    assert scratch.get("key") == b"value"
    scratch.close()
    assert open_descriptors() == before


# Damage and tampering.


async def test_the_bomb_would_go_off_in_stock_diskcache(path: Path, bomb: bytes, crater: Path) -> None:
    """That the tests below can fail."""
    with diskcache.Cache(str(path)) as stock:
        stock.set("key", b"value")
        tamper(path, "UPDATE Cache SET mode = 4, value = ?", bomb)
        stock.get("key")
    assert exists(crater)


@pytest.mark.parametrize("raw", [0, 1])
@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4, "4", None])
async def test_pickled_row_is_never_run(
    scratch: Scratch, path: Path, bomb: bytes, crater: Path, mode: object, raw: int
) -> None:
    await scratch.put("key", b"value", 60)
    tamper(path, "UPDATE Cache SET mode = ?, value = ?, raw = ?", mode, bomb, raw)
    assert scratch.get("key") in (None, bomb)
    await usable(scratch)
    assert not exists(crater)


async def test_pickled_file_is_never_read(scratch: Scratch, path: Path, bomb: bytes, crater: Path) -> None:
    await scratch.put("key", b"value", 60)
    write(path / "bomb.val", bomb)
    tamper(path, "UPDATE Cache SET mode = 4, value = NULL, filename = 'bomb.val'")
    assert scratch.get("key") is None
    await usable(scratch)
    assert not exists(crater)


async def test_planted_key_is_never_unpickled(
    scratch: Scratch, path: Path, bomb: bytes, crater: Path
) -> None:
    await scratch.put("key", b"value", 60)
    tamper(path, "UPDATE Cache SET key = ?, raw = 0", bomb)
    assert scratch.get("key") is None
    await usable(scratch)
    assert not exists(crater)


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
async def test_file_that_a_row_names_is_never_read(
    scratch: Scratch, path: Path, tmp_path: Path, mode: int
) -> None:
    write(tmp_path / "secret", b"secret")
    await scratch.put("key", b"value", 60)
    tamper(path, "UPDATE Cache SET mode = ?, value = NULL, filename = '../secret'", mode)
    assert scratch.get("key") is None


@pytest.mark.parametrize("name", ["../precious", "/{tmp}/precious"])
async def test_file_that_a_row_names_is_never_unlinked(
    scratch: Scratch, path: Path, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    write(precious, b"mine")
    await scratch.put("key", b"value", 60)
    await scratch.put("another", b"value", 60)
    tamper(path, "UPDATE Cache SET filename = ?, expire_time = 1", name.format(tmp=tmp_path))
    await scratch.put("another", b"value", 60)  # replaces one, culls the expired
    await scratch.drop("key")
    assert exists(precious)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_directory", "/nonexistent"),
        ("get", "not callable"),
        ("disk_fetch", "not callable"),
        ("disk_pickle_protocol", "x"),
        ("eviction_policy", "no such"),
        ("size_limit", "big"),
        ("sqlite_writable_schema", 1),
        ("sqlite_mmap_size", 1 << 30),
        (b"\xff", 1),
    ],
)
async def test_planted_setting_starts_it_afresh(path: Path, key: object, value: object) -> None:
    scratch = Scratch(path)
    await scratch.put("key", b"value", 60)
    scratch.close()
    tamper(path, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
    again = Scratch(path)
    assert again.get("key") is None
    await usable(again)
    again.close()


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_damaged_database_is_started_afresh(path: Path, content: bytes) -> None:
    write(path / "cache.db", content)
    scratch = Scratch(path)
    assert scratch.get("key") is None
    await usable(scratch)
    scratch.close()


async def test_database_damaged_while_in_use_heals(scratch: Scratch, path: Path) -> None:
    await scratch.put("key", b"value", 60)
    assert scratch.get("key") == b"value"
    scramble(path)
    scratch.get("key")
    await usable(scratch)


async def test_table_dropped_while_in_use_heals(scratch: Scratch, path: Path) -> None:
    await scratch.put("key", b"value", 60)
    tamper(path, "DROP TABLE Cache")
    assert scratch.get("key") is None
    await usable(scratch)


async def test_folder_removed_while_in_use_heals(scratch: Scratch, path: Path) -> None:
    await scratch.put("key", b"value", 60)
    shutil.rmtree(path)
    await usable(scratch)


async def test_file_in_place_of_the_folder_is_replaced(path: Path) -> None:
    write(path, b"a file")
    scratch = Scratch(path)
    await usable(scratch)
    scratch.close()


async def test_database_locked_by_another_is_no_damage(scratch: Scratch, path: Path) -> None:
    await scratch.put("key", b"value", 60)
    with closing(sqlite3.connect(path / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await scratch.put("another", b"value", 60)
        assert scratch.get("key") == b"value"
        assert scratch.get("another") is None
        other.execute("ROLLBACK")
    await scratch.put("another", b"value", 60)
    assert (scratch.get("key"), scratch.get("another")) == (b"value", b"value")


async def test_no_store_at_all_is_not_fatal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    scratch = Scratch(path)
    await scratch.put("key", b"value", 60)
    assert scratch.get("key") is None
    await scratch.drop("key")
    monkeypatch.undo()
    await usable(scratch)
    scratch.close()


@pytest.mark.parametrize("value", ["text", 5, None, bytearray(b"x"), [b"x"]])
def test_only_bytes_are_kept(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError):
        BytesDisk(str(tmp_path)).store(value, False)


@pytest.mark.parametrize("key", [b"bytes", 5, None, ("a", "b")])
def test_only_text_is_a_key(tmp_path: Path, key: object) -> None:
    with pytest.raises(TypeError):
        BytesDisk(str(tmp_path)).put(key)
    with pytest.raises(ValueError, match="not text"):
        BytesDisk(str(tmp_path)).get(key, True)


async def test_all_that_begin_alike_are_dropped_and_no_others(scratch: Scratch) -> None:
    keys = ("referrers a/b 1", "referrers a/b 2", "referrers a/bc 1", "tags a/b")
    for key in keys:
        await scratch.put(key, b"value", 60)
    await scratch.drop_all("referrers a/b ")
    assert [key for key in keys if scratch.get(key)] == ["referrers a/bc 1", "tags a/b"]
