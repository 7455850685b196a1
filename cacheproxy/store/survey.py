"""What is here, for people: by upstream and repository, and around one image. Scans and point reads only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial as bind
from typing import Any

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database, Row, Tx

# A blob counts once in each repository that has it, and once for its upstream and in all.
REPOSITORIES = """
SELECT repository.upstream, repository.name,
    (SELECT count(*) FROM image WHERE image.repository = repository.id),
    coalesce(sum(CASE WHEN blob.generation > 0 THEN 1 ELSE 0 END), 0),
    CAST(coalesce(sum(CASE WHEN blob.generation > 0 THEN blob.size ELSE 0 END), 0) AS BIGINT)
FROM repository
LEFT JOIN link ON link.repository = repository.id
LEFT JOIN blob ON blob.digest = link.digest
GROUP BY repository.id, repository.upstream, repository.name
ORDER BY repository.upstream, repository.name
"""

UPSTREAMS = """
SELECT held.upstream, CAST(sum(held.size) AS BIGINT)
FROM (
    SELECT DISTINCT repository.upstream, blob.digest, blob.size
    FROM repository
    JOIN link ON link.repository = repository.id
    JOIN blob ON blob.digest = link.digest
    WHERE blob.generation > 0
) AS held
GROUP BY held.upstream
"""

ALL = "SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob WHERE generation > 0"

IMAGE = """
SELECT image.pushed FROM repository JOIN image ON image.repository = repository.id
WHERE repository.name = :repository AND image.digest = :digest
"""

TAGS_OF = """
SELECT tag.name FROM repository JOIN tag ON tag.repository = repository.id
WHERE repository.name = :repository AND tag.digest = :digest
ORDER BY tag.name
"""

BLOB = "SELECT size, generation, used FROM blob WHERE digest = :digest"

DAMAGED = """
SELECT found, noticed FROM quarantine WHERE digest = :digest ORDER BY noticed DESC LIMIT 1
"""

SHARERS = """
SELECT repository.name FROM link JOIN repository ON repository.id = link.repository
WHERE link.digest = :digest AND repository.name <> :repository
ORDER BY repository.name
"""

OLDER = """
SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob WHERE generation > 0 AND used < :used
"""


HOSTED = "(hosted)"
"""In place of an upstream's name, which cannot be this: repositories that have none."""


@dataclass(frozen=True, slots=True)
class RepositoryUse:
    upstream: str
    """HOSTED: it has none."""
    repository: str
    images: int
    blobs: int
    bytes: int
    """Of all blobs of it that are here, whoever else has them too."""


@dataclass(frozen=True, slots=True)
class Use:
    repositories: tuple[RepositoryUse, ...]
    upstreams: dict[str, int]
    """Bytes by upstream: what its repositories share counts once."""
    blobs: int
    bytes: int
    """What is on the disk: shared bytes count once."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """Stored bytes of a blob were not what they should be, of late."""

    found: str
    """missing, unreadable, truncated, mismatch."""
    noticed: float


@dataclass(frozen=True, slots=True)
class BlobUse:
    size: int
    here: bool
    used: float
    sharers: tuple[str, ...]
    """Other repositories that have it."""
    damaged: Damaged | None


@dataclass(frozen=True, slots=True)
class ImageUse:
    since: float
    tags: tuple[str, ...]


class Survey:
    """Raises StoreSuspect and StoreBusy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def use(self) -> Use:
        return await self._database.scan(_use)

    async def image(self, repository: str, digest: Digest) -> ImageUse | None:
        """None: it is not here."""
        return await self._database.scan(bind(_image, repository, digest))

    async def blob(self, repository: str, digest: Digest) -> BlobUse | None:
        """None: no row knows it. `repository` is not among the sharers."""
        return await self._database.scan(bind(_blob, repository, digest))

    async def older_bytes(self, used: float) -> int:
        """Bytes of stored blobs that were last used before that."""
        row = await self._database.scan(lambda tx: tx.one(OLDER, used=used))
        return int(_first(row))


def _use(tx: Tx) -> Use:
    repositories = tuple(RepositoryUse(upstream or HOSTED, *rest) for upstream, *rest in tx.all(REPOSITORIES))
    upstreams = {upstream or HOSTED: size for upstream, size in tx.all(UPSTREAMS)}
    ((blobs, size),) = tx.all(ALL)
    return Use(repositories, upstreams, blobs, size)


def _image(repository: str, digest: Digest, tx: Tx) -> ImageUse | None:
    row = tx.one(IMAGE, repository=repository, digest=digest)
    if row is None:
        return None
    tags = tuple(name for (name,) in tx.all(TAGS_OF, repository=repository, digest=digest))
    return ImageUse(row[0], tags)


def _blob(repository: str, digest: Digest, tx: Tx) -> BlobUse | None:
    row = tx.one(BLOB, digest=digest)
    if row is None:
        return None
    size, generation, used = row
    sharers = tuple(name for (name,) in tx.all(SHARERS, digest=digest, repository=repository))
    damaged = tx.one(DAMAGED, digest=digest)
    return BlobUse(size, generation > 0, used, sharers, None if damaged is None else Damaged(*damaged))


def _first(row: Row | None) -> Any:
    assert row is not None
    return row[0]
