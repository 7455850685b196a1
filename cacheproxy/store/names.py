"""Names of hosted repositories, by how they begin."""

from __future__ import annotations

from functools import partial as bind

from cacheproxy.store.database import Database, Tx

# "0" follows "/": names are compared by their bytes.
BELOW = """
SELECT name FROM repository
WHERE kind = 'hosted' AND (name = :prefix OR (name >= :first AND name < :beyond))
ORDER BY name LIMIT :n
"""


async def hosted_below(database: Database, prefix: str, n: int) -> list[str]:
    """The first `n` hosted repositories called that, or something below it. Raises as Database.scan."""
    return await database.scan(bind(_below, prefix=prefix, n=n))


def _below(tx: Tx, prefix: str, n: int) -> list[str]:
    found = tx.all(BELOW, prefix=prefix, first=f"{prefix}/", beyond=f"{prefix}0", n=n)
    return [str(name) for (name,) in found]
