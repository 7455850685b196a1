"""Hosted repositories for the tests of rows."""

from __future__ import annotations

from cacheproxy.store.database import Database, Tx

ADD = """
INSERT INTO repository (name, kind, upstream, created) VALUES (:name, 'hosted', NULL, 0)
ON CONFLICT (name) DO NOTHING
"""


async def host(database: Database, *names: str) -> None:
    """Make hosted repositories of these names."""

    def make(tx: Tx) -> None:
        for name in names:
            tx.run(ADD, name=name)

    await database.write(make)


async def rows(database: Database, sql: str, **named: object) -> list[tuple[object, ...]]:
    return await database.scan(lambda tx: tx.all(sql, **named))
