"""What every database does, whichever it is (see conftest.DATABASES)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from cacheproxy.store.database import Database, Tx
from cacheproxy.store.errors import Conflict
from cacheproxy.store.records import Records
from tests.store.images import LAYER_DIGEST, REPOSITORY, image, record


async def test_what_is_written_is_read_on_every_way(database: Database) -> None:
    await database.write(lambda tx: tx.run("INSERT INTO trash (path, not_before) VALUES ('a', 1)"))

    def paths(tx: Tx) -> list[Any]:
        return [tuple(row) for row in tx.all("SELECT path, not_before FROM trash")]

    assert await database.read(paths) == [("a", 1.0)]
    assert await database.scan(paths) == [("a", 1.0)]
    assert await database.write(paths) == [("a", 1.0)]


async def test_write_that_raises_writes_nothing(database: Database) -> None:
    def fails(tx: Tx) -> None:
        tx.run("INSERT INTO trash (path, not_before) VALUES ('a', 1)")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(fails)
    assert await database.read(lambda tx: tx.one("SELECT path FROM trash")) is None


async def test_broken_constraint_is_a_conflict_and_writes_nothing(database: Database) -> None:
    def twice(tx: Tx) -> None:
        for _ in range(2):
            tx.run("INSERT INTO trash (path, not_before) VALUES ('a', 1)")

    with pytest.raises(Conflict):
        await database.write(twice)
    assert await database.read(lambda tx: tx.one("SELECT path FROM trash")) is None


async def test_many_writers_lose_nothing(database: Database) -> None:
    async def write(n: int) -> None:
        await database.write(
            lambda tx: tx.run("INSERT INTO trash (path, not_before) VALUES (:path, :n)", path=f"p{n}", n=n)
        )

    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(write, n)
    (row,) = await database.scan(lambda tx: tx.all("SELECT count(*), sum(not_before) FROM trash"))
    assert tuple(row) == (100, 4950.0)


async def test_cancelled_read_and_scan_are_cancelled(database: Database) -> None:
    for way in (database.read, database.scan):
        with trio.CancelScope() as scope:
            scope.cancel()
            await way(lambda tx: tx.all("SELECT path FROM trash"))
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM blob WHERE digest = :layer",
        "DELETE FROM manifest",
        "DELETE FROM image WHERE digest = :image",  # its tag
        "DELETE FROM repository",
        "INSERT INTO link (repository, digest, size) VALUES (1, 'sha256:none', 1)",
        "INSERT INTO blob (digest, size, generation, location, used) VALUES ('x', -1, 0, '', 0)",
        "INSERT INTO blob (digest, size, generation, location, used) VALUES ('x', 1, 7, '', 0)",
        "INSERT INTO repository (name, kind, created) VALUES ('x', 'other', 0)",
    ],
)
async def test_schema_refuses_to_lose_or_tear_what_is_referenced(
    records: Records, database: Database, sql: str
) -> None:
    named = {"layer": LAYER_DIGEST, "image": await record(records, image(), "latest")}
    used = {name: value for name, value in named.items() if f":{name}" in sql}
    with pytest.raises(Conflict):
        await database.write(lambda tx: tx.run(sql, **used))
    assert await records.blob(REPOSITORY, LAYER_DIGEST) is not None
    assert await records.tag(REPOSITORY, "latest") is not None
