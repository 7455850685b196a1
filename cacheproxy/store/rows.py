"""Rows as values."""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.core.digest import Digest


@dataclass(frozen=True, slots=True)
class Repository:
    id: int
    name: str
    kind: str
    """"cached" or "hosted"."""
    upstream: str | None
    """Of a cached one: the upstream's prefix."""
    created: float
    """Seconds since the epoch, as all times in rows."""


@dataclass(frozen=True, slots=True)
class TagRow:
    digest: Digest
    checked: float
    """When the upstream last said that the tag means this."""
    moved: float
    """When it came to mean this."""
    pending: Digest | None
    """What the upstream says it means now, while that manifest is not here."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    """Bytes of the manifest."""
    subject: Digest | None
    body: bytes
    """Verbatim: the digest is over these bytes."""


@dataclass(frozen=True, slots=True)
class ReferrerRow:
    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int


@dataclass(frozen=True, slots=True)
class BlobRow:
    digest: Digest
    size: int
    """True when generation > 0, else what the manifest or the upstream says."""
    generation: int
    """0: no bytes here."""
    location: str
    """What the content store made of it; "" when there are no bytes."""


@dataclass(frozen=True, slots=True)
class Evictable:
    """Bytes that may go, as far as the rows know."""

    digest: Digest
    size: int
    generation: int
    location: str
    used: float
    """When it was last read, as far as that is written down."""
    upstreams: frozenset[str]
    """Those whose repositories have it."""
