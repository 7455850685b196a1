"""What the token server remembers: the keys that sign, and the refresh tokens that were given out."""

from __future__ import annotations

from typing import NamedTuple

from cacheproxy.store.database import Database, Tx

KEYS = "SELECT kid, secret, created FROM signing_key ORDER BY created, kid"
DROP_KEYS = "DELETE FROM signing_key WHERE created < :before"
ADD_KEY = "INSERT INTO signing_key (kid, secret, created) VALUES (:kid, :secret, :created)"


class KeptKey(NamedTuple):
    kid: str
    secret: bytes
    """PKCS #8, DER."""
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
