"""A manifest is taken: with what it names, and the tags that come to mean it, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cacheproxy.core.digest import Digest
from cacheproxy.core.events import By, Event, Kind
from cacheproxy.core.manifest import ParsedManifest, foreign
from cacheproxy.core.settings import Settings
from cacheproxy.store import queries
from cacheproxy.store.database import Row, Tx
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.pushing import HOLD, NoRepository
from cacheproxy.store.review import HOLD_ITEM, SETTLE

FIND = "SELECT id, settings FROM repository WHERE name = :name AND kind = 'hosted'"
HAS_BLOB = "SELECT 1 FROM link WHERE repository = :repository AND digest = :digest"
HAS_IMAGE = "SELECT media_type FROM image WHERE repository = :repository AND digest = :digest"
TAGGED = "SELECT digest FROM tag WHERE repository = :repository AND name = :name"
CREATE = """
INSERT INTO repository (name, kind, upstream, created, settings)
VALUES (:name, 'hosted', NULL, :now, :settings)
ON CONFLICT (name) DO NOTHING
"""
ADD_ABSENT = """
INSERT INTO absent (repository, digest, image) VALUES (:repository, :digest, :image)
ON CONFLICT (repository, digest, image) DO NOTHING
"""
USAGE = """
SELECT
    (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM link WHERE repository = :repository),
    (SELECT count(*) FROM image WHERE repository = :repository)
"""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A manifest as it came."""

    digest: Digest
    body: bytes
    parsed: ParsedManifest
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a manifest was not taken; one of these is not empty, or true."""

    missing: tuple[Digest, ...] = ()
    """Blobs, or manifests of an index that must not be sparse."""
    fixed: tuple[str, ...] = ()
    """Tags that mean another image, and must not move."""
    retyped: str = ""
    """The media type under which the same bytes are here."""
    over: str = ""
    """What there is too much of: "bytes", "images"."""


@dataclass(frozen=True, slots=True)
class Put:
    fresh: bool
    """The repository did not have the image."""
    moved: dict[str, Digest | None] = field(default_factory=dict)
    """The tags that came to mean it, with what they meant before."""
    born: bool = False
    """The repository was not there before."""


class NotBorn(Exception):
    """The repository would have been made by a manifest that is not taken: nothing is made."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def found(tx: Tx, name: str) -> tuple[int, Settings]:
    """The number and the settings of a hosted repository. Raises NoRepository."""
    row = tx.one(FIND, name=name)
    if row is None:
        raise NoRepository(name)
    return int(row[0]), Settings.parse(row[1])


def create(tx: Tx, name: str, settings: Settings, now: float, outbox: Outbox, by: By | None) -> bool:
    """A hosted repository. False: there is one of that name, hosted or cached."""
    if tx.one(queries.REPOSITORY_ID, name=name) is not None:
        return False
    tx.run(CREATE, name=name, now=now, settings=settings.text())
    outbox.note(tx, Event(Kind.REPOSITORY_CREATED, name, now, by=by))
    return True


def take(
    name: str, pushed: Pushed, now: float, outbox: Outbox, by: By | None, birth: Settings | None, tx: Tx
) -> Put | Refused:
    """`birth`: how the repository is made if it is not there. Raises NoRepository, and NotBorn."""
    born = birth is not None and create(tx, name, birth, now, outbox, by)
    answer = _take(name, pushed, now, outbox, by, tx)
    if not born:
        return answer
    if isinstance(answer, Refused):
        raise NotBorn(answer)
    return replace(answer, born=True)


def _take(name: str, pushed: Pushed, now: float, outbox: Outbox, by: By | None, tx: Tx) -> Put | Refused:
    repository, settings = found(tx, name)
    tx.run(HOLD_ITEM, repository=repository, digest=pushed.digest)
    here: Row | None = tx.one(HAS_IMAGE, repository=repository, digest=pushed.digest)
    if here is not None and here[0] != pushed.parsed.media_type:
        return Refused(retyped=here[0])
    meant = {tag: _meaning(tx, repository, tag) for tag in pushed.tags}
    moved = {tag: digest for tag, digest in meant.items() if digest != pushed.digest}
    fixed = tuple(tag for tag, digest in moved.items() if digest is not None and not settings.movable(tag))
    if fixed:
        return Refused(fixed=fixed)
    missing = _missing(tx, repository, pushed.parsed, settings, now)
    if missing:
        return Refused(missing=missing)
    if here is None:
        over = _over(tx, repository, settings)
        if over:
            return Refused(over=over)
        _add(tx, repository, pushed, now)
    _refer(tx, repository, pushed)
    for tag in sorted(moved):
        tx.run(queries.MOVE_TAG, repository=repository, name=tag, digest=pushed.digest, now=now)
    # Whoever pushes it wants it for its own sake, whatever index it was a part of.
    tx.run(SETTLE, repository=repository, digest=pushed.digest)
    put = Put(here is None, moved)
    for event in _told(name, pushed, put, now, by):
        outbox.note(tx, event)
    return put


def _told(name: str, pushed: Pushed, put: Put, now: float, by: By | None) -> list[Event]:
    tags: dict[str, Digest | None] = {tag: put.moved[tag] for tag in sorted(put.moved)}
    if put.fresh and not tags:
        tags = {"": None}
    parsed = pushed.parsed
    return [
        Event(
            Kind.IMAGE_PUSHED,
            name,
            now,
            pushed.digest,
            parsed.media_type,
            parsed.artifact_type or "",
            len(pushed.body),
            tag,
            before or "",
            by=by,
        )
        for tag, before in tags.items()
    ]


def _meaning(tx: Tx, repository: int, tag: str) -> Digest | None:
    row = tx.one(TAGGED, repository=repository, name=tag)
    return None if row is None else Digest.parse(row[0])


def _missing(
    tx: Tx, repository: int, parsed: ParsedManifest, settings: Settings, now: float
) -> tuple[Digest, ...]:
    """What the manifest names and the repository has not got.

    A layer that is to be had elsewhere need not be here (image-spec, "Non-Distributable Layers").
    """
    needed = sorted({blob.digest for blob in parsed.blobs if not foreign(blob)})
    held = {digest for digest in needed if _has(tx, repository, digest, now)}
    missing = [] if settings.sparse == "images" else [digest for digest in needed if digest not in held]
    if settings.sparse == "nothing":
        children = sorted({child.digest for child in parsed.manifests})
        missing += [
            child for child in children if tx.one(HAS_IMAGE, repository=repository, digest=child) is None
        ]
    return tuple(missing)


def _has(tx: Tx, repository: int, digest: Digest, now: float) -> bool:
    linked = tx.one(HAS_BLOB, repository=repository, digest=digest)
    return linked is not None and tx.one(HOLD, digest=digest, now=now) is not None


def _over(tx: Tx, repository: int, settings: Settings) -> str:
    if settings.quota_bytes is None and settings.quota_images is None:
        return ""
    stored, images = usage(tx, repository)
    if settings.quota_bytes is not None and stored > settings.quota_bytes:
        return "bytes"
    return "images" if settings.quota_images is not None and images >= settings.quota_images else ""


def usage(tx: Tx, repository: int) -> tuple[int, int]:
    """(bytes, images) of a repository."""
    row = tx.one(USAGE, repository=repository)
    assert row is not None
    return int(row[0]), int(row[1])


def _add(tx: Tx, repository: int, pushed: Pushed, now: float) -> None:
    parsed = pushed.parsed
    tx.run(queries.ADD_MANIFEST, digest=pushed.digest, body=pushed.body)
    tx.run(
        queries.ADD_IMAGE,
        repository=repository,
        digest=pushed.digest,
        media_type=parsed.media_type,
        artifact_type=parsed.artifact_type,
        size=len(pushed.body),
        subject=None if parsed.subject is None else parsed.subject.digest,
        now=now,
    )
    for child in sorted({child.digest for child in parsed.manifests}):
        tx.run(queries.ADD_CHILD, repository=repository, image=pushed.digest, digest=child)


def _refer(tx: Tx, repository: int, pushed: Pushed) -> None:
    """To the blobs that are here; the others are waited for (pushing.ARRIVED)."""
    for blob in sorted({blob.digest for blob in pushed.parsed.blobs}):
        here = tx.one(HAS_BLOB, repository=repository, digest=blob) is not None
        add = queries.ADD_REFERENCE if here else ADD_ABSENT
        tx.run(add, repository=repository, image=pushed.digest, digest=blob)
