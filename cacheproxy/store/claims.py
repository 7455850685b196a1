"""Which blobs an upstream has shown to some callers only."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial as bind

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database, Tx

LINKED = """
SELECT 1 FROM link JOIN repository ON repository.id = link.repository
WHERE link.digest = :digest AND repository.kind = 'cached' AND repository.upstream = :upstream LIMIT 1
"""


class Claims:
    """Of upstreams that decide for themselves who may read them."""

    def __init__(self, database: Database, upstreams: Iterable[str]) -> None:
        self._database = database
        self.upstreams = frozenset(upstreams)

    async def include(self, digest: Digest) -> bool:
        """Whether one of their repositories is known to have the blob. Raises as Database.read."""
        for upstream in self.upstreams:
            if await self._database.read(bind(_linked, digest=digest, upstream=upstream)):
                return True
        return False


def _linked(tx: Tx, digest: Digest, upstream: str) -> bool:
    return tx.one(LINKED, digest=digest, upstream=upstream) is not None
