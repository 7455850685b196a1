"""Taking images out for good: their rows, and the bytes that nobody else names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial as bind

from cacheproxy.core import events
from cacheproxy.core.digest import Digest
from cacheproxy.store import queries
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.leaving import Farewell
from cacheproxy.store.outbox import Outbox

TAGS = "SELECT name, digest FROM tag WHERE repository = :repository"
IMAGES = "SELECT digest, subject FROM image WHERE repository = :repository"
CHILDREN = "SELECT image, digest FROM child WHERE repository = :repository"
PINS = "SELECT name FROM pin WHERE repository = :repository"

# A tag that has moved since it was looked at is no longer what was to be removed.
DROP_TAG = """
DELETE FROM tag WHERE repository = :repository AND name = :name AND digest = :digest
RETURNING name
"""
REFERENCES = "SELECT digest FROM reference WHERE repository = :repository AND image = :digest"
DROP_IMAGE = "DELETE FROM image WHERE repository = :repository AND digest = :digest"
DROP_MANIFEST = """
DELETE FROM manifest WHERE digest = :digest AND NOT EXISTS (SELECT 1 FROM image WHERE image.digest = :digest)
"""
LINKS = "SELECT digest FROM link WHERE repository = :repository"
DROP_LINK = """
DELETE FROM link WHERE repository = :repository AND digest = :digest AND NOT EXISTS (
    SELECT 1 FROM reference WHERE reference.repository = :repository AND reference.digest = :digest
)
"""
DROP_BLOB = """
DELETE FROM blob WHERE digest = :digest AND NOT EXISTS (SELECT 1 FROM link WHERE link.digest = :digest)
RETURNING size, generation, location
"""
STAYS = "SELECT size FROM blob WHERE digest = :digest AND generation > 0"
DROP_REPOSITORY = """
DELETE FROM repository WHERE id = :repository
    AND NOT EXISTS (SELECT 1 FROM image WHERE image.repository = :repository)
    AND NOT EXISTS (SELECT 1 FROM link WHERE link.repository = :repository)
    AND NOT EXISTS (SELECT 1 FROM pin WHERE pin.repository = :repository)
"""


@dataclass(frozen=True, slots=True)
class Graph:
    """What names what in one repository."""

    tags: dict[str, Digest]
    images: dict[Digest, Digest | None]
    """With the subjects of those that have one."""
    children: dict[Digest, frozenset[Digest]]
    """By index; some of them may not be here."""
    pins: frozenset[str]


@dataclass(frozen=True, slots=True)
class Gone:
    """The bytes of one blob, which no row names any more."""

    digest: Digest
    size: int
    location: str


@dataclass(frozen=True, slots=True)
class Removed:
    gone: tuple[Gone, ...]
    staying: int
    """Bytes of blobs that the images named, and that others have too."""
    coming: tuple[Digest, ...] = ()
    """Blobs without bytes, which nobody names any more either: a fill may still bring them."""


class _NotInEarnest(Exception):
    def __init__(self, removed: Removed) -> None:
        super().__init__()
        self.removed = removed


class Removal:
    """Raises StoreSuspect and StoreBusy; `remove` StoreFull and Conflict too."""

    def __init__(self, database: Database, outbox: Outbox | None = None) -> None:
        """`outbox`: where it is noted what went; None: nobody is to be told."""
        self._database = database
        self._outbox = outbox or Outbox()

    async def graph(self, repository: str) -> Graph | None:
        """None: there is no such repository."""
        return await self._database.scan(bind(_graph, repository))

    async def remove(
        self,
        repository: str,
        tags: Iterable[tuple[str, Digest]],
        images: Collection[Digest],
        now: float,
        *,
        whole: bool,
        earnest: bool,
    ) -> Removed:
        """Images and the tags that mean them, in one transaction; bytes that nobody else names are trash.

        `whole`: the links that no image here explains go too, and the repository with them. Not in `earnest`:
        nothing is changed, and the answer is the same. Raises Conflict when a tag has come to mean one of the
        images meanwhile.
        """
        farewell = Farewell(self._outbox, now, events.by.get())
        remove = bind(_remove, repository, sorted(tags), sorted(images), farewell, whole, earnest)
        try:
            return await self._database.write(remove)
        except _NotInEarnest as end:
            return end.removed

    async def drop_unnamed(self, digests: Iterable[Digest], now: float) -> tuple[Gone, ...]:
        """Of these blobs the rows that no repository names; their bytes are trash."""
        in_order = sorted(digests)

        def drop(tx: Tx) -> tuple[Gone, ...]:
            return tuple(gone for digest in in_order if (gone := _drop_blob(tx, digest, now)) is not None)

        return tuple(gone for gone in await self._database.write(drop) if gone.location)


def _graph(repository: str, tx: Tx) -> Graph | None:
    row = tx.one(queries.REPOSITORY_ID, name=repository)
    if row is None:
        return None
    parse = Digest.parse
    children: dict[Digest, set[Digest]] = {}
    for index, child in tx.all(CHILDREN, repository=row[0]):
        children.setdefault(parse(index), set()).add(parse(child))
    return Graph(
        {name: parse(digest) for name, digest in tx.all(TAGS, repository=row[0])},
        {
            parse(digest): None if subject is None else parse(subject)
            for digest, subject in tx.all(IMAGES, repository=row[0])
        },
        {index: frozenset(named) for index, named in children.items()},
        frozenset(name for (name,) in tx.all(PINS, repository=row[0])),
    )


def _remove(
    repository: str,
    tags: Iterable[tuple[str, Digest]],
    images: Collection[Digest],
    farewell: Farewell,
    whole: bool,
    earnest: bool,
    tx: Tx,
) -> Removed:
    row = tx.one(queries.REPOSITORY_ID, name=repository)
    if row is None:
        return Removed((), 0)
    dropped = _drop_tags(tx, row[0], tags)
    if not whole:
        _tell(tx, row[0], dropped, images, farewell)
    blobs = _drop_images(tx, row[0], images)
    if whole:
        blobs |= {digest for (digest,) in tx.all(LINKS, repository=row[0])}
    removed = _drop_blobs(tx, row[0], blobs, farewell.now)
    if whole:
        tx.run(DROP_REPOSITORY, repository=row[0])
        farewell.repository(tx, repository)
    if not earnest:
        raise _NotInEarnest(removed)
    return removed


def _drop_tags(tx: Tx, repository: int, tags: Iterable[tuple[str, Digest]]) -> dict[Digest, list[str]]:
    """Those that were there, by what they meant."""
    dropped: dict[Digest, list[str]] = {}
    for name, digest in tags:
        if tx.one(DROP_TAG, repository=repository, name=name, digest=digest) is not None:
            dropped.setdefault(digest, []).append(name)
    return dropped


def _tell(
    tx: Tx,
    repository: int,
    tags: Mapping[Digest, Sequence[str]],
    images: Collection[Digest],
    farewell: Farewell,
) -> None:
    for digest in images:
        farewell.image(tx, repository, digest, tags.get(digest, ()))
    for digest in tags.keys() - set(images):
        for name in tags[digest]:
            farewell.tag(tx, repository, digest, name)


def _drop_images(tx: Tx, repository: int, images: Iterable[Digest]) -> set[str]:
    """Returns the blobs that they named."""
    blobs: set[str] = set()
    for digest in images:
        blobs |= {named for (named,) in tx.all(REFERENCES, repository=repository, digest=digest)}
        tx.run(DROP_IMAGE, repository=repository, digest=digest)
        tx.run(DROP_MANIFEST, digest=digest)
    return blobs


def _drop_blobs(tx: Tx, repository: int, blobs: Iterable[str], now: float) -> Removed:
    dropped, staying = list[Gone](), 0
    for digest in sorted(blobs):
        tx.run(DROP_LINK, repository=repository, digest=digest)
        gone = _drop_blob(tx, digest, now)
        if gone is None:
            kept = tx.one(STAYS, digest=digest)
            staying += 0 if kept is None else kept[0]
        else:
            dropped.append(gone)
    coming = tuple(blob.digest for blob in dropped if not blob.location)
    return Removed(tuple(blob for blob in dropped if blob.location), staying, coming)


def _drop_blob(tx: Tx, digest: str, now: float) -> Gone | None:
    """The row, if no repository names it; its bytes are trash. Without a location: it had none."""
    row = tx.one(DROP_BLOB, digest=digest)
    if row is None:
        return None
    size, generation, location = row
    if generation > 0:
        tx.run(queries.ADD_TRASH, path=location, not_before=now)
    return Gone(Digest.parse(digest), size, location if generation > 0 else "")
