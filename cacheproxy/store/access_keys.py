"""Pairs of access keys that were made by command."""

from __future__ import annotations

from typing import NamedTuple

from cacheproxy.store.database import Database, Row

ADD = """
INSERT INTO access_key (id, principal, secret, created) VALUES (:id, :principal, :secret, :created)
ON CONFLICT (id) DO NOTHING RETURNING id
"""
REMOVE = "DELETE FROM access_key WHERE id = :id RETURNING id"
FIND = "SELECT id, principal, secret, created FROM access_key WHERE id = :id"
ALL = "SELECT id, principal, secret, created FROM access_key ORDER BY principal, created, id"


class AccessKeyRow(NamedTuple):
    id: str
    principal: str
    """"user:terraform"."""
    secret: bytes
    """Sealed."""
    created: float


class AccessKeyRows:
    """Raises as Database.read and Database.write. With the account that a command made its keys go, too
    (store.accounts)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: AccessKeyRow) -> bool:
        """False: there is one of that id."""
        return await self._database.write(lambda tx: tx.one(ADD, **row._asdict())) is not None

    async def remove(self, key_id: str) -> bool:
        """False: there is none of that id."""
        return await self._database.write(lambda tx: tx.one(REMOVE, id=key_id)) is not None

    async def find(self, key_id: str) -> AccessKeyRow | None:
        row = await self._database.read(lambda tx: tx.one(FIND, id=key_id))
        return None if row is None else _row(row)

    async def all(self) -> list[AccessKeyRow]:
        return [_row(row) for row in await self._database.scan(lambda tx: tx.all(ALL))]


def _row(row: Row) -> AccessKeyRow:
    key_id, principal, secret, created = row
    return AccessKeyRow(str(key_id), str(principal), bytes(secret), float(created))
