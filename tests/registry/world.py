"""A cache in a folder, before an upstream in memory: what the tests of pulling stand on."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.freshness import FreshRule, StaleRule
from cacheproxy.core.media import OCI_MANIFEST
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.routing import Target, Via
from cacheproxy.core.settings import Settings
from cacheproxy.registry.blobs import Blobs, DiskShelf
from cacheproxy.registry.eviction import Eviction
from cacheproxy.registry.fill import FillRules
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.flights import Flights
from cacheproxy.registry.listings import Listings
from cacheproxy.registry.manifests import Manifests
from cacheproxy.registry.origin import Missing, Origin, nothing_set
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.space import Space
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.proofs import Proofs
from cacheproxy.store.records import Records
from cacheproxy.store.scratch import Scratch
from cacheproxy.store.sqlite import SQLite
from cacheproxy.upstream.registry import FetchedManifest, Head
from tests.registry.fakes import FakeUpstream

HOUR, DAY = 3600.0, 86400.0

TARGET = Target("hub", "hub/library/debian", "library/debian", Via.PREFIX, None)


def manifest(*blobs: bytes, subject: Digest | None = None, note: str = "", artifact_type: str = "") -> bytes:
    """An image manifest over the blobs, the first of which is its config."""
    described = [
        {"mediaType": "application/octet-stream", "digest": str(Digest.of(blob)), "size": len(blob)}
        for blob in blobs
    ]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
        "annotations": {"note": note},
    }
    if artifact_type:
        document["artifactType"] = artifact_type
    if subject is not None:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 7}
    return msgspec.json.encode(document)


@dataclass
class FakeRegistry(FakeUpstream):
    """An upstream registry with one repository; every call is noted, and fails while `failure` is set."""

    data: bytes = b""
    tags: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[Digest, bytes] = field(default_factory=dict)
    media_type: str | None = OCI_MANIFEST
    listed_referrers: list[dict[str, Any]] | None = None
    failure: Cause | None = None
    calls: list[str] = field(default_factory=list)
    delay: float = 0.0
    head_has_digest: bool = True

    def push(self, tag: str | None, body: bytes) -> Digest:
        digest = Digest.of(body)
        self.manifests[digest] = body
        if tag is not None:
            self.tags[tag] = body
        return digest

    async def _call(self, name: str, patience: float | None = None) -> None:
        self.calls.append(name)
        if patience is not None and self.delay > patience:
            await trio.sleep(patience)
            raise UpstreamError(Cause.TIMEOUT, "did not answer", "hub")
        await trio.sleep(self.delay)
        if self.failure is not None:
            raise UpstreamError(self.failure, f"failed: {self.failure}", "hub")

    def _find(self, reference: str) -> bytes:
        body = self.manifests.get(reference) if isinstance(reference, Digest) else self.tags.get(reference)
        if body is None:
            raise UpstreamError(Cause.MISSING, "has no such manifest", "hub", status=404)
        return body

    async def head_manifest(
        self, repository: str, reference: Digest | str, *, patience: float | None = None
    ) -> Head:
        await self._call(f"HEAD {reference}", patience)
        body = self._find(reference)
        if not self.head_has_digest:
            self.calls.append(f"GET {reference}")
            return Head(Digest.of(body), self.media_type, len(body), self._fetched(body))
        return Head(Digest.of(body), self.media_type, len(body))

    def _fetched(self, body: bytes) -> FetchedManifest:
        return FetchedManifest(body, self.media_type, Digest.of(body))

    async def get_manifest(
        self, repository: str, reference: Digest | str, *, patience: float | None = None
    ) -> FetchedManifest:
        await self._call(f"GET {reference}", patience)
        return self._fetched(self._find(reference))

    async def head_blob(self, repository: str, digest: Digest) -> int:
        await self._call(f"HEAD blob {digest}")
        if digest != self.digest:
            raise UpstreamError(Cause.MISSING, "has no such blob", "hub", status=404)
        return len(self.data)

    async def list_tags(self, repository: str) -> Sequence[str]:
        await self._call("tags")
        return list(self.tags)

    async def referrers(self, repository: str, digest: Digest) -> Sequence[dict[str, Any]] | None:
        await self._call("referrers")
        return self.listed_referrers


@dataclass
class World:
    upstream: FakeRegistry
    manifests: Manifests
    blobs: Blobs
    listings: Listings
    missing: Missing
    records: Records
    content: DiskContent
    space: Space
    eviction: Eviction
    recency: Recency
    proofs: Proofs
    quarantine: Quarantine
    now: float = 1_000_000.0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


@asynccontextmanager
async def world(
    folder: Path,
    upstream: FakeRegistry | None = None,
    stale: StaleRule | None = None,
    missing_for: float = 60.0,
    budget: int | None = None,
    keep: float = math.inf,
    born: Callable[[str], Settings] = nothing_set,
) -> AsyncIterator[World]:
    registry = upstream or FakeRegistry()
    all_causes = frozenset(Cause) - {Cause.MISSING}
    origin = Origin(
        registry,
        (FreshRule(Patterns(("**",)), HOUR),),
        stale or StaleRule(30 * DAY, all_causes),
        missing_for,
        born,
    )
    origins = {"hub": origin}
    content = DiskContent(folder / "blobs")
    scratch = Scratch(folder / "scratch")
    async with SQLite.open(folder / "rows.db") as database, trio.open_nursery() as nursery:
        records = Records(database)
        space = Space(budget, lambda _: 0, content.capacity, stored=0, partials=())
        missing = Missing(scratch)

        def clock() -> float:
            return built.now

        recency = Recency(records.record_used, clock)
        proofs = Proofs(database)
        quarantine = Quarantine(proofs, content, space, clock)
        eviction = Eviction(records, content, space, recency, {"hub": keep}, clock)
        shelf = DiskShelf(content, records, clock)
        fills = Fills(nursery, shelf, FillRules(parallel_from=None), space, eviction)
        built = World(
            registry,
            Manifests(records, missing, Flights(nursery), origins, clock),
            Blobs(records, content, missing, Flights(nursery), fills, quarantine, recency, origins, clock),
            Listings(records, scratch, Flights(nursery), origins, clock),
            missing,
            records,
            content,
            space,
            eviction,
            recency,
            proofs,
            quarantine,
        )
        await nursery.start(eviction.run)
        yield built
        nursery.cancel_scope.cancel()
    scratch.close()
