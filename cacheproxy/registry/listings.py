"""Lists of cached repositories: tags, and the referrers of an image. The upstream's, kept for a while."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial as bind
from typing import Any

import msgspec
import structlog
import trio

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.freshness import lifetime
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.name import fallback_tag
from cacheproxy.core.routing import Target
from cacheproxy.registry import metrics
from cacheproxy.registry.flights import Flights
from cacheproxy.registry.manifests import PATIENCE
from cacheproxy.registry.origin import Origin
from cacheproxy.store.records import Records
from cacheproxy.store.scratch import Scratch

log = structlog.get_logger()

KEPT = 30 * 86400.0
"""Seconds a list stays in the scratch store, fresh or not, for the day its upstream is down."""


@dataclass(frozen=True, slots=True)
class PulledList:
    items: Sequence[Any]
    outcome: str
    failure: UpstreamError | None = None
    """Why it is not the upstream's list of now."""


class _Entry(msgspec.Struct):
    """As kept in the scratch store."""

    fetched: float
    items: list[Any]


class Listings:
    def __init__(
        self,
        records: Records,
        scratch: Scratch,
        flights: Flights[PulledList],
        origins: Mapping[str, Origin],
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._scratch = scratch
        self._flights = flights
        self._origins = origins
        self._clock = clock

    async def tags(self, target: Target) -> PulledList:
        """All tags, sorted. Raises UpstreamError when the upstream fails and nothing is here."""
        return await self._list(
            f"tags {target.repository}",
            target,
            bind(self._upstream_tags, target),
            bind(self._records.tags, target.repository),
        )

    async def referrers(self, target: Target, subject: Digest) -> PulledList:
        """Descriptors of what refers to the image: the upstream's, or its fallback tag's, and those here."""
        return await self._list(
            f"referrers {target.repository} {subject}",
            target,
            bind(self._upstream_referrers, target, subject),
            bind(self._own_referrers, target, subject),
        )

    async def forget(self, repository: str) -> None:
        """The next who ask for its tags, or for the referrers of an image, get the upstream's of then."""
        await self._scratch.drop(f"tags {repository}")
        await self._scratch.drop_all(f"referrers {repository} ")

    async def _list(
        self,
        key: str,
        target: Target,
        fetch: Callable[[], Awaitable[list[Any]]],
        own: Callable[[], Awaitable[list[Any]]],
    ) -> PulledList:
        entry = self._kept(key)
        fresh_for = lifetime(self._origins[target.upstream].fresh, "")
        if entry is not None and self._clock() < entry.fetched + fresh_for:
            return PulledList(entry.items, "hit")
        hanging = UpstreamError(Cause.TIMEOUT, f"gave no list in {PATIENCE:g} s", target.upstream)
        waits = entry is None or not self._may_serve_stale(target, entry.items, hanging)
        with trio.move_on_after(math.inf if waits else PATIENCE):
            pulled, ours = await self._flights.share(key, bind(self._refresh, key, target, entry, fetch, own))
            return pulled if ours or pulled.outcome != "miss" else replace(pulled, outcome="coalesced")
        # The call goes on: who asks next gets the list of an upstream that was only slow.
        assert entry is not None
        return _stale(target, entry.items, hanging)

    async def _refresh(
        self,
        key: str,
        target: Target,
        entry: _Entry | None,
        fetch: Callable[[], Awaitable[list[Any]]],
        own: Callable[[], Awaitable[list[Any]]],
    ) -> PulledList:
        try:
            items = await fetch()
        except UpstreamError as error:
            items = entry.items if entry is not None else await own()
            if not self._may_serve_stale(target, items, error):
                raise
            return _stale(target, items, error)
        await self._scratch.put(key, msgspec.json.encode(_Entry(self._clock(), items)), KEPT)
        return PulledList(items, "miss")

    def _may_serve_stale(self, target: Target, items: Sequence[Any], error: UpstreamError) -> bool:
        return bool(items) and error.root in self._origins[target.upstream].stale.causes

    def _kept(self, key: str) -> _Entry | None:
        kept = self._scratch.get(key)
        if kept is None:
            return None
        try:
            return msgspec.json.decode(kept, type=_Entry)
        except msgspec.DecodeError:
            return None  # expendable, and not believed when it is not what was put

    async def _upstream_tags(self, target: Target) -> list[str]:
        return sorted(set(await self._origins[target.upstream].registry.list_tags(target.remote)))

    async def _upstream_referrers(self, target: Target, subject: Digest) -> list[dict[str, Any]]:
        registry = self._origins[target.upstream].registry
        listed = await registry.referrers(target.remote, subject)
        if listed is None:
            listed = await self._from_fallback_tag(target, subject)
        return _merged(listed, await self._own_referrers(target, subject))

    async def _from_fallback_tag(self, target: Target, subject: Digest) -> Sequence[dict[str, Any]]:
        """Where registries without the API keep them (distribution-spec, "Referrers Tag Schema")."""
        registry = self._origins[target.upstream].registry
        try:
            fetched = await registry.get_manifest(target.remote, fallback_tag(subject))
            parsed = manifests.parse(fetched.body, fetched.media_type)
        except UpstreamError as error:
            if error.cause is Cause.MISSING:
                return ()
            raise
        except manifests.ManifestInvalid as error:
            log.info("fallback tag is no index", repository=target.repository, error=str(error))
            return ()
        if parsed.media_type != OCI_INDEX:
            return ()
        listed: Sequence[dict[str, Any]] | None = msgspec.json.decode(fetched.body)["manifests"]
        return listed or ()

    async def _own_referrers(self, target: Target, subject: Digest) -> list[dict[str, Any]]:
        return [
            _descriptor(row.media_type, str(row.digest), row.size, row.artifact_type)
            for row in await self._records.referrers(target.repository, subject)
        ]


def _stale(target: Target, items: Sequence[Any], error: UpstreamError) -> PulledList:
    metrics.STALE.labels(target.upstream, error.root.value).inc()
    return PulledList(items, "stale", error)


def _descriptor(media_type: str, digest: str, size: int, artifact_type: str | None) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": size}
    if artifact_type:
        descriptor["artifactType"] = artifact_type
    return descriptor


def _merged(upstream: Sequence[dict[str, Any]], own: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each digest once; the upstream's word first, for it has the annotations."""
    merged: dict[str, dict[str, Any]] = {}
    for descriptor in (*upstream, *own):
        try:
            digest = Digest.parse(str(descriptor.get("digest")))
        except InvalidDigest:
            continue
        merged.setdefault(digest, descriptor)
    return list(merged.values())
