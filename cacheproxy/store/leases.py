"""What one node at a time does: whoever holds the lease. It ends by itself when its holder is gone."""

from __future__ import annotations

from cacheproxy.store.database import Tx

# Of `lease.digest`: what is leased has a name that is no digest.
HOLDER = "SELECT holder FROM lease WHERE digest = :digest AND until > :now AND holder <> :holder LIMIT 1"
DROP = "DELETE FROM lease WHERE digest = :digest AND until <= :now"
TAKE = """
INSERT INTO lease (digest, holder, until) VALUES (:digest, :holder, :until)
ON CONFLICT (digest, holder) DO UPDATE SET until = excluded.until
"""
RELEASE = "DELETE FROM lease WHERE digest = :digest AND holder = :holder"


def take(tx: Tx, name: str, holder: str, now: float, until: float) -> str | None:
    """Hold it alone until then: None, or who does already."""
    other = tx.one(HOLDER, digest=name, holder=holder, now=now)
    if other is not None:
        return str(other[0])
    tx.run(DROP, digest=name, now=now)
    tx.run(TAKE, digest=name, holder=holder, until=until)
    return None


def release(tx: Tx, name: str, holder: str) -> None:
    tx.run(RELEASE, digest=name, holder=holder)
