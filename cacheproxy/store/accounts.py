"""Accounts that were made by command."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cacheproxy.store.database import Database, Row, Tx

ADD = """
INSERT INTO account (name, hash, groups, created, expires) VALUES (:name, :hash, :groups, :created, :expires)
ON CONFLICT (name) DO NOTHING RETURNING name
"""
REMOVE = "DELETE FROM account WHERE name = :name RETURNING name"
FORGET = "DELETE FROM account WHERE expires < :before"
REMOVE_KEYS = "DELETE FROM access_key WHERE principal = :principal"
FORGET_KEYS = """
DELETE FROM access_key WHERE principal IN (SELECT 'user:' || name FROM account WHERE expires < :before)
"""
FIND = "SELECT name, hash, groups, created, expires FROM account WHERE name = :name"
ALL = "SELECT name, hash, groups, created, expires FROM account ORDER BY name"


class AccountRow(NamedTuple):
    name: str
    hash: bytes
    """SHA-256 of the secret."""
    groups: tuple[str, ...]
    created: float
    expires: float | None
    """None: never."""


class AccountRows:
    """Raises as Database.read and Database.write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: AccountRow) -> bool:
        """False: the name is taken."""
        values = {**row._asdict(), "groups": msgspec.json.encode(row.groups).decode()}
        return await self._database.write(lambda tx: tx.one(ADD, **values)) is not None

    async def remove(self, name: str) -> bool:
        """With its access keys, which are not for whoever has the name next. False: there is none of it."""

        def run(tx: Tx) -> bool:
            if tx.one(REMOVE, name=name) is None:
                return False
            tx.run(REMOVE_KEYS, principal=f"user:{name}")
            return True

        return await self._database.write(run)

    async def forget(self, before: float) -> None:
        """Remove those whose time was over before that, with their access keys."""

        def run(tx: Tx) -> None:
            tx.run(FORGET_KEYS, before=before)
            tx.run(FORGET, before=before)

        await self._database.write(run)

    async def find(self, name: str) -> AccountRow | None:
        row = await self._database.read(lambda tx: tx.one(FIND, name=name))
        return None if row is None else _row(row)

    async def all(self) -> list[AccountRow]:
        return [_row(row) for row in await self._database.scan(lambda tx: tx.all(ALL))]


def _row(row: Row) -> AccountRow:
    name, hashed, groups, created, expires = row
    return AccountRow(
        str(name), bytes(hashed), msgspec.json.decode(groups, type=tuple[str, ...]), created, expires
    )
