"""What has lost its last reason to be here goes: blobs that no link holds, images whose index is gone.

Who took a reason away has noted it (`review.py`). A sweep looks again, in the transaction in which it acts:
what got a reason meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial as bind
from typing import Any

from cacheproxy.store import leases, queries
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.hosted import drop_image
from cacheproxy.store.leaving import Farewell
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.review import BLOB, SETTLE

TRASHED = 3600.0
"""Seconds that bytes stay when their row is gone: whoever is reading them gets to the end."""

COLLECTOR = "collector"
"""In place of a digest in `lease`: the collection itself, which one node does at a time."""

DUE = """
SELECT repository, digest, due FROM review
WHERE due <= :now AND (due, repository, digest) > (:due, :repository, :digest)
ORDER BY due, repository, digest LIMIT :n
"""
STILL_DUE = "SELECT 1 FROM review WHERE repository = :repository AND digest = :digest AND due <= :now"
POSTPONE = "UPDATE review SET due = :due WHERE repository = :repository AND digest = :digest"

# First of all, as whoever links the blob does (review.py).
HOLD = "UPDATE blob SET used = used WHERE digest = :digest"
# A link of a hosted repository that only its time holds. (Of a cached one, eviction says what goes.)
_TIMED = """
repository IN (SELECT repository.id FROM repository WHERE repository.kind = 'hosted')
    AND NOT EXISTS (
        SELECT 1 FROM reference
        WHERE reference.repository = link.repository AND reference.digest = link.digest
    )
"""
DROP_LINKS = f"DELETE FROM link WHERE digest = :digest AND keep_until <= :now AND {_TIMED} RETURNING digest"  # noqa: S608
KEPT_UNTIL = f"SELECT max(keep_until) FROM link WHERE digest = :digest AND {_TIMED}"  # noqa: S608
DROP_LEASES = "DELETE FROM lease WHERE digest = :digest AND until <= :now"
LEASED_UNTIL = "SELECT max(until) FROM lease WHERE digest = :digest"
DROP_BLOB = """
DELETE FROM blob WHERE digest = :digest
    AND NOT EXISTS (SELECT 1 FROM link WHERE link.digest = :digest)
    AND NOT EXISTS (SELECT 1 FROM reference WHERE reference.digest = :digest)
RETURNING size, generation, location
"""

# What an image has to have lost: each tag, each pin, each index that names it, and its subject.
WANTED = """
SELECT 1 FROM tag WHERE repository = :repository AND digest = :digest
UNION ALL SELECT 1 FROM pin WHERE repository = :repository AND name = :digest
UNION ALL SELECT 1 FROM child WHERE repository = :repository AND digest = :digest
UNION ALL SELECT 1 FROM image JOIN image AS subject
    ON subject.repository = image.repository AND subject.digest = image.subject
    WHERE image.repository = :repository AND image.digest = :digest
LIMIT 1
"""
IMAGE = """
SELECT 1 FROM image JOIN repository ON repository.id = image.repository
WHERE image.repository = :repository AND image.digest = :digest AND repository.kind = 'hosted'
"""

# The same questions as above, of all that is due, without a change.
DOOMED_IMAGES = """
SELECT count(*) FROM review
JOIN image ON image.repository = review.repository AND image.digest = review.digest
JOIN repository ON repository.id = image.repository
WHERE review.due <= :now AND repository.kind = 'hosted'
    AND NOT EXISTS (SELECT 1 FROM tag WHERE tag.repository = image.repository AND tag.digest = image.digest)
    AND NOT EXISTS (SELECT 1 FROM pin WHERE pin.repository = image.repository AND pin.name = image.digest)
    AND NOT EXISTS (
        SELECT 1 FROM child WHERE child.repository = image.repository AND child.digest = image.digest
    )
    AND NOT EXISTS (
        SELECT 1 FROM image AS subject
        WHERE subject.repository = image.repository AND subject.digest = image.subject
    )
"""
DOOMED_BLOBS = """
SELECT count(*), CAST(coalesce(sum(blob.size), 0) AS BIGINT)
FROM review JOIN blob ON blob.digest = review.digest
WHERE review.repository = 0 AND review.due <= :now AND blob.generation > 0
    AND NOT EXISTS (SELECT 1 FROM reference WHERE reference.digest = blob.digest)
    AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.digest = blob.digest AND lease.until > :now)
    AND NOT EXISTS (
        SELECT 1 FROM link JOIN repository ON repository.id = link.repository
        WHERE link.digest = blob.digest AND (link.keep_until > :now OR repository.kind <> 'hosted')
    )
"""
BACKLOG = "SELECT count(*), coalesce(min(due), 0) FROM review WHERE due <= :now"
STOCK = """
SELECT
    (SELECT CAST(coalesce(sum(blob.size), 0) AS BIGINT) FROM blob WHERE blob.generation > 0 AND (
        EXISTS (
            SELECT 1 FROM link JOIN repository ON repository.id = link.repository
            WHERE link.digest = blob.digest AND repository.kind = 'hosted'
        )
        OR NOT EXISTS (SELECT 1 FROM link WHERE link.digest = blob.digest)
    )),
    (SELECT count(*) FROM image JOIN repository ON repository.id = image.repository
        WHERE repository.kind = 'hosted')
"""


@dataclass(frozen=True, slots=True)
class Item:
    """To be looked at. `repository` is a number of rows, BLOB for a blob."""

    repository: int
    digest: str
    due: float


@dataclass(slots=True)
class Swept:
    """What went."""

    looked: int = 0
    images: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0
    """Of the blobs."""

    def add(self, more: Swept) -> None:
        self.looked += more.looked
        self.images += more.images
        self.links += more.links
        self.blobs += more.blobs
        self.bytes += more.bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    items: int
    oldest: float
    """When the first of them was due; 0: none is."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What hosted repositories have."""

    bytes: int
    images: int


@dataclass(frozen=True, slots=True)
class Doomed:
    """What a pass would let go."""

    images: int
    blobs: int
    bytes: int


@dataclass(slots=True)
class _NotInEarnest(Exception):
    swept: Swept = field(default_factory=Swept)


class Collection:
    """Raises StoreSuspect and StoreBusy; what writes, those, StoreFull, Conflict and CommitUnknown too.

    Times are seconds since the epoch.
    """

    def __init__(self, database: Database, outbox: Outbox | None = None) -> None:
        """`outbox`: where it is noted that images went; None: nobody is to be told."""
        self._database = database
        self._outbox = outbox or Outbox()

    async def due(self, now: float, n: int, after: Item | None = None) -> list[Item]:
        """Up to `n` items behind `after` that are due, the first due first."""
        last = after or Item(-1, "", 0.0)
        named = {"due": last.due, "repository": last.repository, "digest": last.digest}
        rows = await self._database.scan(lambda tx: tx.all(DUE, now=now, n=n, **named))
        return [Item(*row) for row in rows]

    async def sweep(self, items: Sequence[Item], now: float, grace: float, *, earnest: bool = True) -> Swept:
        """Look at these again, in one transaction, and let go what nothing holds.

        What an image named is kept for `grace` more: somebody may have heard that it is here. Not in
        `earnest`: nothing is changed, and the answer is the same.
        """
        # What an image takes, it takes before a blob's row.
        in_order = sorted(items, key=lambda item: (item.repository == BLOB, item.repository, item.digest))
        try:
            return await self._database.write(
                bind(_sweep, in_order, Farewell(self._outbox, now), grace, earnest)
            )
        except _NotInEarnest as end:
            return end.swept

    async def backlog(self, now: float) -> Backlog:
        ((items, oldest),) = await self._database.scan(lambda tx: tx.all(BACKLOG, now=now))
        return Backlog(int(items), float(oldest))

    async def stock(self) -> Stock:
        ((size, images),) = await self._database.scan(lambda tx: tx.all(STOCK))
        return Stock(int(size), int(images))

    async def doomed(self, now: float) -> Doomed:
        def doomed(tx: Tx) -> Doomed:
            ((images,),) = tx.all(DOOMED_IMAGES, now=now)
            ((blobs, size),) = tx.all(DOOMED_BLOBS, now=now)
            return Doomed(int(images), int(blobs), int(size))

        return await self._database.scan(doomed)

    async def lease(self, holder: str, now: float, until: float) -> str | None:
        """Collect alone until then: None, or who does already."""
        return await self._database.write(lambda tx: leases.take(tx, COLLECTOR, holder, now, until))

    async def release(self, holder: str) -> None:
        await self._database.write(lambda tx: leases.release(tx, COLLECTOR, holder))


def _sweep(items: Sequence[Item], farewell: Farewell, grace: float, earnest: bool, tx: Tx) -> Swept:
    swept, now = Swept(), farewell.now
    for item in items:
        if tx.one(STILL_DUE, repository=item.repository, digest=item.digest, now=now) is None:
            continue  # whoever gave it a new reason, or looked at it before us, said so in its row
        swept.looked += 1
        if item.repository == BLOB:
            _sweep_blob(tx, item.digest, now, swept)
        else:
            _sweep_image(tx, item, farewell, now + grace, swept)
    if not earnest:
        raise _NotInEarnest(swept)
    return swept


def _sweep_blob(tx: Tx, digest: str, now: float, swept: Swept) -> None:
    tx.run(HOLD, digest=digest)
    tx.run(DROP_LEASES, digest=digest, now=now)
    swept.links += len(tx.all(DROP_LINKS, digest=digest, now=now))
    held = [row[0] for sql in (KEPT_UNTIL, LEASED_UNTIL) if (row := tx.one(sql, digest=digest)) and row[0]]
    if held:
        tx.run(POSTPONE, repository=BLOB, digest=digest, due=max(held))
        return
    tx.run(SETTLE, repository=BLOB, digest=digest)
    gone = tx.one(DROP_BLOB, digest=digest)
    if gone is None:
        return
    size, generation, location = gone
    if generation > 0:
        tx.run(queries.ADD_TRASH, path=location, not_before=now + TRASHED)
        swept.blobs += 1
        swept.bytes += size


def _sweep_image(tx: Tx, item: Item, farewell: Farewell, keep_until: float, swept: Swept) -> None:
    named: dict[str, Any] = {"repository": item.repository, "digest": item.digest}
    tx.run(SETTLE, **named)
    if tx.one(IMAGE, **named) is None or tx.one(WANTED, **named) is not None:
        return
    farewell.image(tx, **named)
    drop_image(tx, item.repository, item.digest, keep_until)
    swept.images += 1
