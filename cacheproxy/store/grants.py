"""Grants that were made by command."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cacheproxy.store.database import Database, Row

ADD = """
INSERT INTO access_grant (principals, rights, deny, repositories, networks, created)
VALUES (:principals, :rights, :deny, :repositories, :networks, :created)
RETURNING id
"""
REMOVE = "DELETE FROM access_grant WHERE id = :id RETURNING id"
ALL = """
SELECT id, principals, rights, deny, repositories, networks, created FROM access_grant ORDER BY id
"""

Texts = tuple[str, ...]


class GrantRow(NamedTuple):
    id: int
    """0: none yet."""
    principals: Texts
    rights: Texts
    deny: bool
    repositories: Texts
    """Patterns, in their order."""
    networks: Texts
    created: float


class GrantRows:
    """Raises as Database.read and Database.write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: GrantRow) -> int:
        """Its number."""
        values = row._asdict() | {"deny": int(row.deny)}
        del values["id"]
        written = {
            name: _text(value) if isinstance(value, tuple) else value for name, value in values.items()
        }
        added = await self._database.write(lambda tx: tx.one(ADD, **written))
        assert added is not None
        return int(added[0])

    async def remove(self, number: int) -> bool:
        """False: there is none of that number."""
        return await self._database.write(lambda tx: tx.one(REMOVE, id=number)) is not None

    async def all(self) -> list[GrantRow]:
        return [_row(row) for row in await self._database.scan(lambda tx: tx.all(ALL))]


def _text(values: Texts) -> str:
    return msgspec.json.encode(values).decode()


def _texts(text: str) -> Texts:
    return msgspec.json.decode(text, type=Texts)


def _row(row: Row) -> GrantRow:
    number, principals, rights, deny, repositories, networks, created = row
    lists = [_texts(text) for text in (principals, rights, repositories, networks)]
    return GrantRow(int(number), lists[0], lists[1], bool(deny), lists[2], lists[3], float(created))
