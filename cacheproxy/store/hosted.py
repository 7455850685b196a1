"""Rows of hosted repositories: what is pushed into them, what is taken out, and what they list.

Each change is one transaction, which also notes what may have lost its last reason to be here (`review.py`).
Whoever takes a reason away gives `keep_until`: so long at least everything else stays. A tag that goes, or
moves on, is no such reason: what it meant is still pulled by its digest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import TypeVar

from cacheproxy.core import events
from cacheproxy.core.digest import Digest
from cacheproxy.core.events import Event, Kind
from cacheproxy.core.settings import Settings
from cacheproxy.store import queries
from cacheproxy.store.database import Database, Tx, settle
from cacheproxy.store.errors import Conflict
from cacheproxy.store.leaving import Farewell
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.pushing import NoRepository
from cacheproxy.store.review import BLOB, DUE_OF, EXTEND, enqueue
from cacheproxy.store.taking import FIND, HAS_IMAGE, NotBorn, Pushed, Put, Refused, create, found, take, usage

T = TypeVar("T")

CONFIGURE = "UPDATE repository SET settings = :settings WHERE name = :name AND kind = 'hosted' RETURNING id"
RENAME = "UPDATE repository SET name = :new WHERE name = :old AND kind = 'hosted' RETURNING id"


DROP_TAG = "DELETE FROM tag WHERE repository = :repository AND name = :name RETURNING digest"
DROP_TAGS = "DELETE FROM tag WHERE repository = :repository AND digest = :digest RETURNING name"
REFERENCES = "SELECT digest FROM reference WHERE repository = :repository AND image = :digest"
CHILDREN = "SELECT digest FROM child WHERE repository = :repository AND image = :digest"
REFERRERS = "SELECT digest FROM image WHERE repository = :repository AND subject = :digest"
DROP_IMAGE = "DELETE FROM image WHERE repository = :repository AND digest = :digest"
DROP_MANIFEST = """
DELETE FROM manifest WHERE digest = :digest AND NOT EXISTS (SELECT 1 FROM image WHERE image.digest = :digest)
"""
KEEP = """
UPDATE link SET keep_until = :keep_until
WHERE repository = :repository AND digest = :digest AND keep_until < :keep_until
"""

ALL_IMAGES = "SELECT digest FROM image WHERE repository = :repository"
ALL_LINKS = "SELECT digest FROM link WHERE repository = :repository"
USED = """
SELECT 1 FROM repository
WHERE id = :repository AND (
    EXISTS (SELECT 1 FROM image WHERE repository = :repository)
    OR EXISTS (SELECT 1 FROM link WHERE repository = :repository)
    OR EXISTS (SELECT 1 FROM upload WHERE repository = :repository)
)
"""
TRASH_CHUNKS = """
INSERT INTO trash (path, not_before)
SELECT chunk.place, :now FROM upload JOIN chunk ON chunk.session = upload.id
WHERE upload.repository = :repository
ON CONFLICT (path) DO NOTHING
"""
EMPTY = (
    "DELETE FROM tag WHERE repository = :repository",
    "DELETE FROM pin WHERE repository = :repository",
    "DELETE FROM upload WHERE repository = :repository",
    "DELETE FROM review WHERE repository = :repository",
    "DELETE FROM image WHERE repository = :repository",
    "DELETE FROM link WHERE repository = :repository",
    "DELETE FROM repository WHERE id = :repository",
)

TAGS = """
SELECT tag.name FROM repository JOIN tag ON tag.repository = repository.id
WHERE repository.name = :repository AND tag.name > :last
ORDER BY tag.name LIMIT :n
"""
NAMES = "SELECT name FROM repository WHERE name > :last ORDER BY name LIMIT :n"
KEPT = """
SELECT name, settings,
    (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM link WHERE link.repository = repository.id),
    (SELECT count(*) FROM image WHERE image.repository = repository.id)
FROM repository WHERE kind = 'hosted' ORDER BY name
"""
LISTED = """
SELECT image.digest, image.media_type, image.artifact_type, image.size, manifest.body
FROM repository
JOIN image ON image.repository = repository.id
JOIN manifest ON manifest.digest = image.digest
WHERE repository.name = :repository AND image.subject = :subject AND image.digest > :last
    AND (CAST(:artifact_type AS TEXT) IS NULL OR image.artifact_type = :artifact_type)
ORDER BY image.digest LIMIT :n
"""


@dataclass(frozen=True, slots=True)
class Referrer:
    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A hosted repository, and what it has."""

    name: str
    settings: Settings
    bytes: int
    images: int


class Hosted:
    """Raises StoreSuspect and StoreBusy; what writes, those, StoreFull, Conflict and CommitUnknown too.

    All that names a repository raises NoRepository, but the lists. Times are seconds since the epoch.
    """

    def __init__(self, database: Database, outbox: Outbox | None = None) -> None:
        """`outbox`: where changes are noted; None: nobody is to be told."""
        self._database = database
        self._outbox = outbox or Outbox()

    async def settings(self, name: str) -> Settings | None:
        """None: there is no hosted repository of that name. Quick: asked for each request."""
        row = await self._database.read(lambda tx: tx.one(FIND, name=name))
        return None if row is None else Settings.parse(row[1])

    async def create(self, name: str, settings: Settings, now: float) -> bool:
        """False: there is a repository of that name."""
        by = events.by.get()
        return await self._database.write(lambda tx: create(tx, name, settings, now, self._outbox, by))

    async def configure(self, name: str, settings: Settings) -> None:
        def configure(tx: Tx) -> None:
            if tx.one(CONFIGURE, name=name, settings=settings.text()) is None:
                raise NoRepository(name)

        await settle(self._database, configure)

    async def rename(self, old: str, new: str, now: float) -> bool:
        """False: there is a repository named `new`."""
        event = Event(Kind.REPOSITORY_RENAMED, new, now, before=old, by=events.by.get())

        def rename(tx: Tx) -> bool:
            if tx.one(queries.REPOSITORY_ID, name=new) is not None:
                return False
            if tx.one(RENAME, old=old, new=new) is None:
                raise NoRepository(old)
            self._outbox.note(tx, event)
            return True

        return await self._database.write(rename)

    async def delete(self, name: str, now: float, *, force: bool) -> bool:
        """The repository with all that is in it. False: it has images, and `force` was not given."""
        return await self._database.write(bind(_delete_repository, name, self._farewell(now), force))

    async def drop_empty(self, name: str, now: float) -> bool:
        """A repository that nobody has come to use. False: somebody has, or there is none."""
        return await self._database.write(bind(_drop_empty, name, self._farewell(now)))

    async def put(
        self, name: str, pushed: Pushed, now: float, birth: Settings | None = None
    ) -> Put | Refused:
        """Take a manifest, its references and its tags, all or nothing.

        `birth`: how the repository is made, with it, if it is not there.
        """
        try:
            return await settle(
                self._database, bind(take, name, pushed, now, self._outbox, events.by.get(), birth)
            )
        except NotBorn as error:
            return error.refused
        except Conflict:
            # What it names went between the look and the write, on a database that lets both begin.
            return Refused(missing=tuple(sorted({blob.digest for blob in pushed.parsed.blobs})))

    async def untag(self, name: str, tag: str, now: float) -> Digest | None:
        """Take a tag away: what it meant, or None when there is none."""
        return await self._database.write(bind(_untag, name, tag, self._farewell(now)))

    async def remove(
        self, name: str, digest: Digest, now: float, keep_until: float
    ) -> tuple[str, ...] | None:
        """Take an image away, with the tags that mean it: these, or None when there is no such image."""
        return await self._database.write(bind(_remove, name, digest, self._farewell(now), keep_until))

    async def stands(self, name: str, digest: Digest, least: float, keep_until: float) -> float:
        """Until when an image, if it is here, stays whatever becomes of others; inf: nobody looks at it.

        To be asked before the image is looked for. If that is not until `least`, it is from now on until
        `keep_until`: whoever hears of a child will not push it before its index.
        """
        row = await self._database.read(lambda tx: tx.one(DUE_OF, name=name, digest=digest))
        if row is not None and row[0] < least:
            named = {"name": name, "digest": digest, "least": least, "keep_until": keep_until}
            row = await self._database.write(lambda tx: tx.one(EXTEND, **named))
        return math.inf if row is None else float(row[0])

    async def tags(self, name: str, last: str, n: int) -> list[str]:
        """Up to `n` tags behind `last`, in order."""
        rows = await self._database.scan(lambda tx: tx.all(TAGS, repository=name, last=last, n=n))
        return [tag for (tag,) in rows]

    async def all(self) -> list[Kept]:
        """The hosted repositories, by name."""
        rows = await self._database.scan(lambda tx: tx.all(KEPT))
        return [Kept(row[0], Settings.parse(row[1]), *row[2:]) for row in rows]

    async def names(self, last: str, n: int) -> list[str]:
        """Up to `n` repositories, hosted and cached, behind `last`, in order."""
        rows = await self._database.scan(lambda tx: tx.all(NAMES, last=last, n=n))
        return [name for (name,) in rows]

    async def referrers(
        self, name: str, subject: Digest, artifact_type: str | None, last: str, n: int
    ) -> list[Referrer]:
        """Up to `n` images behind `last` that have this subject, in the order of their digests."""
        named = {"repository": name, "subject": subject, "artifact_type": artifact_type, "last": last, "n": n}
        rows = await self._database.scan(lambda tx: tx.all(LISTED, **named))
        return [Referrer(Digest.parse(row[0]), *row[1:]) for row in rows]

    def _farewell(self, now: float) -> Farewell:
        return Farewell(self._outbox, now, events.by.get())

    async def usage(self, name: str) -> tuple[int, int]:
        """(bytes, images)."""
        return await self._database.scan(lambda tx: usage(tx, found(tx, name)[0]))


def _untag(name: str, tag: str, farewell: Farewell, tx: Tx) -> Digest | None:
    repository, _ = found(tx, name)
    row = tx.one(DROP_TAG, repository=repository, name=tag)
    if row is None:
        return None
    farewell.tag(tx, repository, row[0], tag)
    return Digest.parse(row[0])


def _remove(
    name: str, digest: Digest, farewell: Farewell, keep_until: float, tx: Tx
) -> tuple[str, ...] | None:
    repository, _ = found(tx, name)
    if tx.one(HAS_IMAGE, repository=repository, digest=digest) is None:
        return None
    tags = tuple(sorted(tag for (tag,) in tx.all(DROP_TAGS, repository=repository, digest=digest)))
    farewell.image(tx, repository, digest, tags)
    drop_image(tx, repository, digest, keep_until)
    return tags


def drop_image(tx: Tx, repository: int, digest: str, keep_until: float) -> None:
    """The image, which no tag means any more. What it named, and what names it, is to be looked at."""
    blobs = _column(tx.all(REFERENCES, repository=repository, digest=digest))
    children = _column(tx.all(CHILDREN, repository=repository, digest=digest))
    referrers = _column(tx.all(REFERRERS, repository=repository, digest=digest))
    tx.run(DROP_IMAGE, repository=repository, digest=digest)
    tx.run(DROP_MANIFEST, digest=digest)
    enqueue(tx, repository, [*children, *referrers], keep_until)
    for blob in sorted(blobs):
        tx.run(KEEP, repository=repository, digest=blob, keep_until=keep_until)
        enqueue(tx, BLOB, [blob], keep_until)


def _delete_repository(name: str, farewell: Farewell, force: bool, tx: Tx) -> bool:
    repository, _ = found(tx, name)
    images = _column(tx.all(ALL_IMAGES, repository=repository))
    if images and not force:
        return False
    blobs = _column(tx.all(ALL_LINKS, repository=repository))
    tx.run(TRASH_CHUNKS, repository=repository, now=farewell.now)
    for statement in EMPTY:
        tx.run(statement, repository=repository)
    for digest in sorted(images):
        tx.run(DROP_MANIFEST, digest=digest)
    enqueue(tx, BLOB, blobs, farewell.now)
    farewell.repository(tx, name)
    return True


def _drop_empty(name: str, farewell: Farewell, tx: Tx) -> bool:
    row = tx.one(FIND, name=name)
    if row is None or tx.one(USED, repository=row[0]) is not None:
        return False
    return _delete_repository(name, farewell, False, tx)


def _column(rows: Iterable[Sequence[str]]) -> list[str]:
    return [row[0] for row in rows]
