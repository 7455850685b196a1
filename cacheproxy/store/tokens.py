"""What the token server remembers: the keys that sign, and the refresh tokens that were given out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cacheproxy.store.database import Database, Tx

KEYS = "SELECT kid, secret, created FROM signing_key ORDER BY created, kid"
FORGET_KEYS = "DELETE FROM signing_key RETURNING kid"
FORGET_ACCESS_KEYS = "DELETE FROM access_key RETURNING id"
DROP_KEYS = "DELETE FROM signing_key WHERE created < :before"
REPLACE_KEY = "UPDATE signing_key SET secret = :secret WHERE kid = :kid AND secret = :former"
ADD_KEY = "INSERT INTO signing_key (kid, secret, created) VALUES (:kid, :secret, :created)"

FORGET = "DELETE FROM refresh_token WHERE expires <= :now"
REMEMBER = "INSERT INTO refresh_token (hash, principal, expires) VALUES (:hash, :principal, :expires)"
FIRST_TOO_MANY = """
SELECT expires FROM refresh_token WHERE principal = :principal
ORDER BY expires DESC LIMIT 1 OFFSET :most
"""
MAKE_ROOM = "DELETE FROM refresh_token WHERE principal = :principal AND expires <= :expires"
WHOSE = "SELECT principal FROM refresh_token WHERE hash = :hash AND expires > :now"

MOST = 1000
"""Refresh tokens of one principal: each login makes one, and who logs in without end loses the oldest."""


class KeptKey(NamedTuple):
    kid: str
    secret: bytes
    """PKCS #8, DER, sealed."""
    created: float


class TokenRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def keys(self, fresh: KeptKey, newest: float, oldest: float) -> list[KeptKey]:
        """All keys, the oldest first. `fresh` joins them if none is younger than `newest`; what is older than
        `oldest` goes. Of several nodes that bring one at once, one's is kept. Raises as Database.write.
        """

        def run(tx: Tx) -> list[KeptKey]:
            kept = [KeptKey(str(kid), bytes(secret), float(at)) for kid, secret, at in tx.all(KEYS)]
            if not kept or kept[-1].created < newest:
                tx.run(ADD_KEY, kid=fresh.kid, secret=fresh.secret, created=fresh.created)
                kept.append(fresh)
            if kept[0].created < oldest:
                tx.run(DROP_KEYS, before=oldest)
            return [key for key in kept if key.created >= oldest]

        return await self._database.write(run)

    async def replace(self, keys: Iterable[tuple[KeptKey, bytes]]) -> None:
        """Other bytes for each key, as long as it has those it had. Raises as Database.write."""
        values = [(key.kid, key.secret, former) for key, former in keys]

        def run(tx: Tx) -> None:
            for kid, secret, former in values:
                tx.run(REPLACE_KEY, kid=kid, secret=secret, former=former)

        await self._database.write(run)

    async def forget_sealed(self) -> int:
        """All that nobody can open: how many. Raises as Database.write."""

        def run(tx: Tx) -> int:
            return len(tx.all(FORGET_KEYS)) + len(tx.all(FORGET_ACCESS_KEYS))

        return await self._database.write(run)

    async def remember(self, hashed: str, principal: str, expires: float, now: float) -> None:
        """A refresh token that was given out. Raises as Database.write."""

        def run(tx: Tx) -> None:
            tx.run(FORGET, now=now)
            tx.run(REMEMBER, hash=hashed, principal=principal, expires=expires)
            beyond = tx.one(FIRST_TOO_MANY, principal=principal, most=MOST)
            if beyond is not None:
                tx.run(MAKE_ROOM, principal=principal, expires=beyond[0])

        await self._database.write(run)

    async def whose(self, hashed: str, now: float) -> str | None:
        """Name of the principal that the refresh token was given to; None: there is none such, or it is over.

        Raises as Database.read.
        """
        row = await self._database.read(lambda tx: tx.one(WHOSE, hash=hashed, now=now))
        return None if row is None else str(row[0])
