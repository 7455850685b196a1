"""Which stored bytes were proven when, and which turned out not to be what they were: rows for the scrub.

A blob is due by `blob.verified`, the oldest first. Several nodes share the work: each claims a few rows for a
time, and a claim that nobody ends runs out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial as bind

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.queries import ADD_TRASH, FORGET_BYTES
from cacheproxy.store.rows import BlobRow

# `free`: claims that run out before that count as none.
DUE = """
SELECT digest, size, generation, location FROM blob
WHERE generation > 0 AND verified < :before AND claimed < :free
ORDER BY verified, digest
LIMIT :n
"""

CLAIM = "UPDATE blob SET claimed = :until WHERE digest = :digest"

PROVE = """
UPDATE blob SET verified = :now, claimed = 0 WHERE digest = :digest AND generation = :generation
"""

RELEASE = "UPDATE blob SET claimed = 0 WHERE digest = :digest AND generation = :generation"

# By the last of all proofs, not by the clock: nobody knows how long the daemon was away.
LATELY = """
SELECT digest, size, generation, location FROM blob
WHERE generation > 0
    AND verified > (SELECT max(verified) FROM blob WHERE generation > 0) - CAST(:seconds AS DOUBLE PRECISION)
ORDER BY verified DESC, digest
LIMIT :n
"""

LEFT = """
SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob
WHERE generation > 0 AND verified < :before
"""

WANT = "UPDATE blob SET verified = -1 WHERE digest = :digest AND generation > 0"

LATEST = "SELECT coalesce(max(verified), 0) FROM blob WHERE generation > 0"

WANT_MORE = """
UPDATE blob SET verified = -1
WHERE digest IN (
    SELECT digest FROM blob
    WHERE generation > 0 AND verified >= 0 AND verified < :before
    ORDER BY verified, digest
    LIMIT :n
)
RETURNING digest
"""

ADD_QUARANTINE = """
INSERT INTO quarantine (digest, generation, size, location, found, reason, noticed)
VALUES (:digest, :generation, :size, :location, :found, :reason, :now)
ON CONFLICT (digest, generation) DO NOTHING
"""

QUARANTINED = """
SELECT digest, generation, size, location, found, reason, noticed FROM quarantine
ORDER BY noticed DESC, digest, generation
LIMIT :n
"""

# All of which something is kept, and all that was kept too long.
KEPT = """
SELECT digest, generation, size, location, found, reason, noticed,
    CASE WHEN EXISTS (
        SELECT 1 FROM blob
        JOIN link ON link.digest = blob.digest
        JOIN repository ON repository.id = link.repository
        WHERE blob.digest = quarantine.digest AND blob.generation = 0 AND repository.kind = 'hosted'
    ) THEN 1 ELSE 0 END
FROM quarantine
WHERE location <> '' OR noticed < :before
ORDER BY noticed DESC, digest, generation
"""

DROP_BYTES = "UPDATE quarantine SET location = '' WHERE digest = :digest AND generation = :generation"

DROP_QUARANTINED = "DELETE FROM quarantine WHERE digest = :digest AND generation = :generation"

REPOSITORIES_OF = """
SELECT repository.name FROM link JOIN repository ON repository.id = link.repository
WHERE link.digest = :digest AND repository.kind = 'cached'
ORDER BY repository.name
LIMIT :n
"""

ASKED = 0.0
"""`before` of what somebody asked for."""

BATCH_BYTES = 64 << 20
"""A claim has so many bytes at most, or one blob: what a kill makes to be read again."""

PAGE = 512
"""Rows of one transaction."""


@dataclass(frozen=True, slots=True)
class Left:
    blobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    digest: str
    generation: int
    size: int
    location: str
    """"": no bytes of it are kept."""
    found: str
    """missing, unreadable, truncated, mismatch."""
    reason: str
    noticed: float
    """Seconds since the epoch."""
    last: bool = False
    """A hosted repository has the blob, and no other bytes of it are here: nobody would bring them again."""


class Proofs:
    """Reads raise StoreSuspect and StoreBusy; what writes, those, StoreFull, Conflict and CommitUnknown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, before: float, free: float, until: Callable[[int], float], n: int) -> list[BlobRow]:
        """Up to `n` blobs last proven before that, whose claims have run out by `free`; ours `until` then,
        which depends on the bytes."""
        return await self._database.write(bind(_claim, before, free, until, n))

    async def prove(self, blobs: Sequence[BlobRow], now: float) -> None:
        """Their bytes are the digests'."""
        await self._each(PROVE, blobs, now=now)

    async def release(self, blobs: Sequence[BlobRow]) -> None:
        """They were claimed, and not looked at."""
        await self._each(RELEASE, blobs)

    async def left(self, before: float) -> Left:
        """What was last proven before that; with ASKED, what somebody waits for."""
        ((blobs, size),) = await self._database.scan(lambda tx: tx.all(LEFT, before=before))
        return Left(blobs, int(size))

    async def lately(self, seconds: float, n: int) -> list[BlobRow]:
        """Up to `n` blobs that were stored, or proven, within so many seconds before the last that was."""
        rows = await self._database.scan(lambda tx: tx.all(LATELY, seconds=seconds, n=n))
        return [BlobRow(Digest.parse(digest), *rest) for digest, *rest in rows]

    async def want(self, digests: Iterable[Digest]) -> None:
        """These come first, whenever they were proven."""
        in_order = sorted(digests)

        def want(tx: Tx) -> None:
            for digest in in_order:
                tx.run(WANT, digest=digest)

        await self._database.write(want)

    async def want_all(self, now: float) -> None:
        """The same of all that is stored, in transactions that keep nobody waiting."""
        ((latest,),) = await self._database.scan(lambda tx: tx.all(LATEST))
        before = max(now, math.nextafter(latest, math.inf))  # a clock may have been ahead
        while await self._database.write(lambda tx: tx.all(WANT_MORE, before=before, n=PAGE)):
            pass

    async def quarantine(self, blob: BlobRow, found: str, reason: str, now: float) -> bool:
        """Take the bytes of this generation from the blob; False when somebody has done that already.

        `found`: missing (then none are kept), unreadable, truncated, mismatch.
        """
        location = "" if found == "missing" else blob.location
        note = {"size": blob.size, "location": location, "found": found, "reason": reason, "now": now}
        return await self._database.write(bind(_quarantine, blob, note))

    async def quarantined(self, n: int = PAGE) -> list[Quarantined]:
        """The last first."""
        rows = await self._database.scan(lambda tx: tx.all(QUARANTINED, n=n))
        return [Quarantined(*row) for row in rows]

    async def kept(self, before: float) -> list[Quarantined]:
        """All whose bytes are kept, and all that were noticed before that, the last first."""
        rows = await self._database.scan(lambda tx: tx.all(KEPT, before=before))
        return [Quarantined(*row) for row in rows]

    async def let_go(
        self, bytes_of: Sequence[Quarantined], rows_of: Sequence[Quarantined], now: float
    ) -> None:
        """The bytes of the ones go into the trash, and the others are forgotten besides."""
        await self._database.write(bind(_let_go, bytes_of, rows_of, now))

    async def repositories(self, digest: Digest, n: int = 8) -> list[str]:
        """Some of the cached ones that have it."""
        rows = await self._database.read(lambda tx: tx.all(REPOSITORIES_OF, digest=digest, n=n))
        return [name for (name,) in rows]

    async def _each(self, sql: str, blobs: Sequence[BlobRow], **named: object) -> None:
        in_order = sorted(blobs, key=lambda blob: blob.digest)

        def change(tx: Tx) -> None:
            for blob in in_order:
                tx.run(sql, digest=blob.digest, generation=blob.generation, **named)

        await self._database.write(change)


def _claim(before: float, free: float, until: Callable[[int], float], n: int, tx: Tx) -> list[BlobRow]:
    found: list[BlobRow] = []
    total = 0
    for digest, size, generation, location in tx.all(DUE, before=before, free=free, n=n):
        if found and total + size > BATCH_BYTES:
            break
        total += size
        found.append(BlobRow(Digest.parse(digest), size, generation, location))
    for blob in sorted(found, key=lambda blob: blob.digest):
        tx.run(CLAIM, digest=blob.digest, until=until(total))
    return found


def _quarantine(blob: BlobRow, note: dict[str, object], tx: Tx) -> bool:
    named = {"digest": blob.digest, "generation": blob.generation}
    if tx.one(FORGET_BYTES, **named) is None:
        return False
    tx.run(ADD_QUARANTINE, **named, **note)
    return True


def _let_go(bytes_of: Sequence[Quarantined], rows_of: Sequence[Quarantined], now: float, tx: Tx) -> None:
    for item in (*bytes_of, *rows_of):
        if item.location:
            tx.run(ADD_TRASH, path=item.location, not_before=now)
    for item in bytes_of:
        tx.run(DROP_BYTES, digest=item.digest, generation=item.generation)
    for item in rows_of:
        tx.run(DROP_QUARANTINED, digest=item.digest, generation=item.generation)
