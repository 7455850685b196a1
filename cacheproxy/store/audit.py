"""Rows and files against what must hold of them (core/invariants.py). Nothing is changed.

It may run beside daemons. The rows of each question are one view; files are listed after the rows were read,
and what then seems wrong is asked of the rows once more: what was stored or evicted meanwhile is no finding.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial as bind
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeVar

import trio

from cacheproxy.core import invariants
from cacheproxy.core.digest import Digest
from cacheproxy.core.invariants import RESTORE, Finding, ImageRow, Remedy, StoredRow
from cacheproxy.store.database import Row, Tx
from cacheproxy.store.listing import SHARDS, Listing, known_as
from cacheproxy.store.partial import KEPT

T = TypeVar("T")

MANIFESTS = 32
"""Bodies at a time: of up to 4 MiB each."""

AT_ONCE = 50_000
"""Stored blobs that are looked through at once; more are, folder by folder."""


UPLOAD_KEPT = 86400.0
"""Seconds without a byte after which a daemon ends an upload (registry.push.SESSION_KEPT)."""


class Rows(Protocol):
    """Of a `Database`, what only looks."""

    async def scan(self, fn: Callable[[Tx], T]) -> T: ...

    async def faults(self) -> list[str]:
        """What the database itself finds wrong with it."""
        ...


class Rule(NamedTuple):
    """Rows that must not be."""

    invariant: str
    said: str
    sql: str
    """Gives one column, the place; `:before` is a time before which all should have been done."""
    advice: str
    remedy: Remedy | None = None


RULES = (
    Rule(
        "I3",
        "an image names a blob that its repository has no link to",
        """
        SELECT repository.name || '@' || reference.image || ' ' || reference.digest
        FROM reference
        JOIN repository ON repository.id = reference.repository
        LEFT JOIN link ON link.repository = reference.repository AND link.digest = reference.digest
        WHERE link.digest IS NULL
        """,
        invariants.RECORD_AGAIN,
    ),
    Rule(
        "I3",
        "an image without its manifest",
        """
        SELECT repository.name || '@' || image.digest
        FROM image
        JOIN repository ON repository.id = image.repository
        LEFT JOIN manifest ON manifest.digest = image.digest
        WHERE manifest.digest IS NULL
        """,
        RESTORE,
    ),
    Rule(
        "I4",
        "a tag that means no image",
        """
        SELECT repository.name || ':' || tag.name
        FROM tag
        JOIN repository ON repository.id = tag.repository
        LEFT JOIN image ON image.repository = tag.repository AND image.digest = tag.digest
        WHERE image.digest IS NULL
        """,
        RESTORE,
    ),
    Rule(
        "I6",
        "a link to no blob, or of no repository",
        """
        SELECT link.digest
        FROM link
        LEFT JOIN blob ON blob.digest = link.digest
        LEFT JOIN repository ON repository.id = link.repository
        WHERE blob.digest IS NULL OR repository.id IS NULL
        """,
        RESTORE,
    ),
    Rule(
        "I3",
        "a pushed image whose bytes are not here",
        """
        SELECT repository.name || '@' || reference.image || ' ' || reference.digest
        FROM repository
        JOIN reference ON reference.repository = repository.id
        JOIN blob ON blob.digest = reference.digest
        WHERE repository.kind = 'hosted' AND blob.generation = 0
        """,
        invariants.PUSH_AGAIN,
    ),
    Rule(
        "I3",
        "an image waits for a blob that its repository has",
        """
        SELECT repository.name || '@' || absent.image || ' ' || absent.digest
        FROM absent
        JOIN repository ON repository.id = absent.repository
        JOIN link ON link.repository = absent.repository AND link.digest = absent.digest
        """,
        invariants.PUSH_AGAIN,
    ),
    Rule(
        "I7",
        "an upload that nobody came back to",
        f"""
        SELECT repository.name || ' ' || upload.id
        FROM upload JOIN repository ON repository.id = upload.repository
        WHERE upload.touched + {UPLOAD_KEPT} < :before
        """,  # noqa: S608 - a number
        "a running daemon ends it, in time",
    ),
    Rule(
        "I7",
        "evicted bytes that wait to be unlinked",
        "SELECT path FROM trash WHERE not_before < :before ORDER BY path",
        "--repair unlinks them; so does the start of a daemon",
        "empty",
    ),
    Rule(
        "I8",
        "a stored blob's file is in the trash",
        "SELECT blob.digest FROM trash JOIN blob ON blob.location = trash.path WHERE blob.generation > 0",
        RESTORE,
    ),
    Rule(
        "I8",
        "a manifest that no image has",
        """
        SELECT manifest.digest FROM manifest LEFT JOIN image ON image.digest = manifest.digest
        WHERE image.digest IS NULL
        """,
        "it costs only its room",
    ),
)

STORED = "SELECT count(*) FROM blob WHERE generation > 0"
BLOBS = """
SELECT digest, size, generation, location FROM blob
WHERE generation > 0 AND digest > :first AND digest < :last
ORDER BY digest
"""
BLOB = "SELECT size, generation, location FROM blob WHERE digest = :digest"
TRASH = "SELECT path FROM trash UNION SELECT location FROM quarantine"
TRASHED = """
SELECT path FROM trash WHERE path = :path UNION SELECT location FROM quarantine WHERE location = :path
"""

BESIDE = """
SELECT 1 FROM upload WHERE id = :name
UNION SELECT 1 FROM chunk WHERE place = :name
UNION SELECT 1 FROM quarantine WHERE location = :name
UNION SELECT 1 FROM trash WHERE path = :name
"""

BODIES = "SELECT digest, body FROM manifest WHERE digest > :after ORDER BY digest LIMIT :n"
IMAGES = """
SELECT repository.name, image.digest, image.media_type, image.artifact_type, image.size, image.subject
FROM image JOIN repository ON repository.id = image.repository
WHERE image.digest > :after AND image.digest <= :last
"""
REFERENCES = """
SELECT repository.name, image.digest, reference.digest
FROM image
JOIN repository ON repository.id = image.repository
JOIN reference ON reference.repository = image.repository AND reference.image = image.digest
WHERE image.digest > :after AND image.digest <= :last
UNION
SELECT repository.name, image.digest, absent.digest
FROM image
JOIN repository ON repository.id = image.repository
JOIN absent ON absent.repository = image.repository AND absent.image = image.digest
WHERE image.digest > :after AND image.digest <= :last
"""
CHILDREN = """
SELECT repository.name, image.digest, child.digest
FROM image
JOIN repository ON repository.id = image.repository
JOIN child ON child.repository = image.repository AND child.image = image.digest
WHERE image.digest > :after AND image.digest <= :last
"""


@dataclass(slots=True)
class Seen:
    """How much was looked at."""

    images: int = 0
    blobs: int = 0
    files: int = 0
    hashed: int = 0
    """Bytes."""


@dataclass
class Audit:
    """Raises StoreError and OSError where something cannot be looked at."""

    rows: Rows
    listing: Listing
    before: float
    """What is younger may still be under way; seconds since the epoch."""
    deep: bool
    """Hash all that is stored."""
    arriving: Callable[[], list[tuple[str, float]]] = list
    """Unfinished downloads, by name and the time of their last byte."""
    seen: Seen = field(default_factory=Seen)
    progress: Callable[[float], None] = lambda share: None

    async def findings(self) -> AsyncIterator[Finding]:
        """In the order in which they are found. With a damaged database, nothing else is looked at."""
        faults = await self.rows.faults()
        for fault in faults:
            yield Finding("I9", fault, "database", RESTORE)
        if faults:
            return
        for finding in invariants.overdue(await _blocking(self.arriving), self.before - KEPT):
            yield finding
        for part in (self._rules, self._manifests, self._blobs, self._beside):
            async for finding in part():
                yield finding

    async def _rules(self) -> AsyncIterator[Finding]:
        for rule in RULES:
            ask = bind(_all, rule.sql, {"before": self.before} if ":before" in rule.sql else {})
            for (where,) in await self.rows.scan(ask):
                yield Finding(rule.invariant, rule.said, where, rule.advice, rule.remedy)

    async def _manifests(self) -> AsyncIterator[Finding]:
        after = ""
        while page := await self.rows.scan(bind(_manifests, after)):
            for one in page:
                self.seen.images += len(one.images)
                for finding in invariants.misread(one.body, one.images, one.blobs, one.children):
                    yield finding
            after = page[-1].digest

    async def _blobs(self) -> AsyncIterator[Finding]:
        ((count,),) = await self.rows.scan(bind(_all, STORED, {}))
        if count:
            await _blocking(self.listing.confirm)
        for shard in SHARDS if count > AT_ONCE else ("",):
            async for finding in self._shard(shard, count):
                yield finding
        self.progress(1.0)

    async def _beside(self) -> AsyncIterator[Finding]:
        """What is neither a blob nor a row's: of uploads, and of what was set aside."""
        for found in await _blocking(lambda: list(self.listing.beside())):
            name = known_as(found.place)
            if found.written < self.before and not await self.rows.scan(bind(_all, BESIDE, {"name": name})):
                self.seen.files += 1
                yield invariants.stray(found.place, found.size)

    async def _shard(self, shard: str, count: int) -> AsyncIterator[Finding]:
        prefix = shard.replace("/", ":")
        rows, trash = await self.rows.scan(bind(_stored_rows, prefix))
        files = await _blocking(lambda: list(self.listing.stored(shard)))
        self.seen.files += len(files)
        there = {file.location: file for file in files}
        named = {row.location for row in rows} | trash
        wrong = list(invariants.lacking(rows, there))
        for finding in [*wrong, *invariants.orphans(files, named, self.before)]:
            if await self.rows.scan(bind(_still, finding)):
                yield finding
        known = {finding.where for finding in wrong}
        for row in rows:
            if self.deep and row.digest not in known:
                async for finding in self.hash(row):
                    yield finding
            self.seen.blobs += 1
            self.progress(min(0.99, self.seen.blobs / max(1, count)))  # more may have come

    async def hash(self, row: StoredRow) -> AsyncIterator[Finding]:
        """Read all of its bytes."""
        for finding in await _blocking(bind(self._altered, row)):
            if await self.rows.scan(bind(_still, replace(finding, generation=row.generation))):
                yield finding

    def _altered(self, row: StoredRow) -> list[Finding]:
        hasher = Digest.parse(row.digest).hasher()
        try:
            for chunk in self.listing.chunks(row.location, row.size):
                hasher.update(chunk)
                self.seen.hashed += len(chunk)
        except FileNotFoundError:
            return list(invariants.lacking([row], {}))
        except OSError as error:
            return [invariants.unreadable(row, str(error))]
        return list(invariants.altered(row, hasher.hexdigest()))


async def _blocking(call: Callable[[], T]) -> T:
    """Whoever stops looking does not wait for a disk: nothing is changed, so nothing is left half done."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


class _Manifest(NamedTuple):
    digest: str
    body: bytes
    images: list[ImageRow]
    blobs: dict[str, set[str]]
    children: dict[str, set[str]]
    """Both by repository."""


def _all(sql: str, named: dict[str, object], tx: Tx) -> list[Row]:
    return tx.all(sql, **named)


def _manifests(after: str, tx: Tx) -> list[_Manifest]:
    bodies = tx.all(BODIES, after=after, n=MANIFESTS)
    if not bodies:
        return []
    span = {"after": after, "last": bodies[-1][0]}
    found = {digest: _Manifest(digest, bytes(body), [], {}, {}) for digest, body in bodies}
    for image in map(ImageRow._make, tx.all(IMAGES, **span)):
        if image.digest in found:  # else it has no manifest, which is a rule's to say
            found[image.digest].images.append(image)
    for sql, named in ((REFERENCES, attrgetter("blobs")), (CHILDREN, attrgetter("children"))):
        for repository, image_digest, digest in tx.all(sql, **span):
            if image_digest in found:
                named(found[image_digest]).setdefault(repository, set()).add(digest)
    return list(found.values())


def _stored_rows(prefix: str, tx: Tx) -> tuple[list[StoredRow], set[str]]:
    """Of a shard; with all of the trash and the quarantine, which are short."""
    last = f"{prefix}g" if prefix else "t"  # behind every hexadecimal digit, and behind "sha"
    rows = [StoredRow(*row) for row in tx.all(BLOBS, first=prefix, last=last)]
    return rows, {path for (path,) in tx.all(TRASH)}


def _still(finding: Finding, tx: Tx) -> bool:
    """Whether the rows still say what made it a finding."""
    if finding.remedy == "remove":
        row = tx.one(BLOB, digest=_named_in(finding.where))
        named = row is not None and row[2] == finding.where
        return not named and tx.one(TRASHED, path=finding.where) is None
    row = tx.one(BLOB, digest=finding.where)
    return row is not None and row[1] == finding.generation


def _named_in(location: str) -> str:
    _, algorithm, _, name = location.split("/")
    return f"{algorithm}:{name.partition('.')[0]}"
