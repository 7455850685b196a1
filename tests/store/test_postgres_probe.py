"""What is found in a PostgreSQL without changing it."""

from __future__ import annotations

import psycopg
import pytest

from cacheproxy.store.errors import DatabaseRefused
from cacheproxy.store.postgres import Postgres
from cacheproxy.store.postgres_probe import examine
from tests.postgres import server


async def made(url: str) -> None:
    """As a daemon leaves it."""
    async with Postgres.open(url):
        pass


def run(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)


async def test_one_in_order(postgres_url: str) -> None:
    await made(postgres_url)
    found = examine(postgres_url)
    assert found.version[0].isdigit()
    assert (found.broken, found.lacking, found.schema, found.usable) == ([], [], "", True)
    assert abs(found.ahead) < 5


def test_an_empty_one_stays_empty(postgres_url: str) -> None:
    assert examine(postgres_url).schema == "it is empty: the first daemon makes the tables"
    assert examine(postgres_url).schema.startswith("it is empty")


async def test_a_schema_of_a_later_version(postgres_url: str) -> None:
    await made(postgres_url)
    run(postgres_url, "INSERT INTO migration VALUES (999, 'x')")
    found = examine(postgres_url)
    assert ("999" in found.schema, found.usable) == (True, False)


def test_promises_that_were_taken_back(postgres_url: str) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    run(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    (broken,) = examine(postgres_url).broken
    assert "synchronous_commit = off" in broken


async def test_rights_that_are_missing(postgres_url: str) -> None:
    await made(postgres_url)
    name = postgres_url.partition("@/")[2].partition("?")[0]
    run(postgres_url, "CREATE ROLE guest LOGIN")
    try:
        run(postgres_url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
        lacking = examine(server().url(name, "guest")).lacking
    finally:
        run(postgres_url, "DROP OWNED BY guest; DROP ROLE guest")
    assert lacking[0] == "it may not make tables in its schema"
    assert "blob is another role's" in lacking


def test_one_that_does_not_answer() -> None:
    with pytest.raises(DatabaseRefused, match=r"PostgreSQL cannot be used: .*connection"):
        examine("postgresql:///rows?host=/nowhere")
