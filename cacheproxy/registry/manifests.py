"""Pulling manifests: what is here while it is fresh, else the upstream's, else stale where allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial as bind

import structlog

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.freshness import Fetch, Serve, TagState, decide, lifetime, may_serve_stale
from cacheproxy.core.routing import Target
from cacheproxy.registry import metrics
from cacheproxy.registry.flights import Flights
from cacheproxy.registry.origin import Missing, Origin
from cacheproxy.store.errors import StoreError
from cacheproxy.store.records import Records
from cacheproxy.store.rows import ImageRow, TagRow
from cacheproxy.upstream.registry import FetchedManifest, Head

log = structlog.get_logger()

PATIENCE = 5.0
"""Seconds that an upstream gets to answer while something stale could be served instead."""


_HANGING = UpstreamError(Cause.TIMEOUT, "does not answer", "")
"""What an upstream that takes longer than PATIENCE would be accused of."""


@dataclass(frozen=True, slots=True)
class PulledManifest:
    digest: Digest
    media_type: str
    body: bytes
    outcome: str
    fresh_until: float
    """Wall clock; until then the same answer may be given again without asking anyone. inf for a digest."""
    age: float | None = None
    """Seconds since the upstream last confirmed a stale answer; None: it is not stale."""
    failure: UpstreamError | None = None
    """Why it is stale."""


class Manifests:
    def __init__(
        self,
        records: Records,
        missing: Missing,
        flights: Flights[PulledManifest],
        origins: Mapping[str, Origin],
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._missing = missing
        self._flights = flights
        self._origins = origins
        """By the upstream's name, which is its prefix."""
        self._clock = clock

    async def get(self, target: Target, reference: Digest | str) -> PulledManifest:
        """Raises UpstreamError when neither the upstream nor what is here can answer."""
        if isinstance(reference, Digest):
            return await self._by_digest(target, reference)
        return await self._by_tag(target, reference)

    async def _by_digest(self, target: Target, digest: Digest) -> PulledManifest:
        image = await self._records.image(target.repository, digest)
        if image is not None:
            return _pulled(image, "hit", math.inf)
        call = bind(self._fetch_by_digest, target, digest)
        return _shared(*await self._flights.share((target.repository, digest), call))

    async def _by_tag(self, target: Target, tag: str) -> PulledManifest:
        here = await self._tag(target, tag)
        if here is not None:
            row, image = here
            decision = self._decide(target, tag, row)
            if isinstance(decision, Serve):
                return _pulled(image, "hit", decision.until)
            if not (await self._records.settings(target.repository)).movable(tag):
                return _pulled(image, "hit", math.inf)
        return _shared(*await self._flights.share((target.repository, tag), bind(self._refresh, target, tag)))

    # One upstream conversation for everyone who asks for the same.

    async def _fetch_by_digest(self, target: Target, digest: Digest) -> PulledManifest:
        image = await self._records.image(target.repository, digest)
        if image is not None:  # another flight landed between the look and ours
            return _pulled(image, "hit", math.inf)
        fetched = await self._get(target, digest, None)
        return await self._keep(target, fetched, None)

    async def _refresh(self, target: Target, tag: str) -> PulledManifest:
        here = await self._tag(target, tag)
        if here is None:
            return await self._keep(target, await self._get(target, tag, None), tag)
        row, image = here
        decision = self._decide(target, tag, row)
        if isinstance(decision, Serve):
            return _pulled(image, "hit", decision.until)
        patience = PATIENCE if self._may_serve_stale(target, row, _HANGING) else None
        try:
            if isinstance(decision, Fetch):  # the tag, not what it meant when it was last asked about
                return await self._keep(target, await self._get(target, tag, patience), tag)
            return await self._ask(target, tag, row, image, patience)
        except UpstreamError as error:
            return self._stale_or_raise(target, row, image, error)

    async def _ask(
        self, target: Target, tag: str, row: TagRow, image: ImageRow, patience: float | None
    ) -> PulledManifest:
        """What the tag means upstream now: nothing is fetched unless it has moved."""
        self._missing.check("manifest", target.repository, tag, target.upstream)
        head = await self._head(target, tag, patience)
        if head.digest == row.digest:
            return await self._confirm(target, tag, image)
        if head.manifest is not None:
            return await self._keep(target, head.manifest, tag)
        assert head.digest is not None
        known = await self._records.image(target.repository, head.digest)
        if known is not None:
            return await self._keep(target, _as_fetched(known), tag, outcome="hit")
        # Should its GET fail, the old image goes on being served, and the GET is all that is left to do.
        await self._note(target, tag, row.checked, head.digest)
        return await self._keep(target, await self._moved(target, tag, head.digest, patience), tag)

    async def _moved(
        self, target: Target, tag: str, digest: Digest, patience: float | None
    ) -> FetchedManifest:
        """By the digest that HEAD told of. Where that is missing the tag has moved on, or HEAD was wrong."""
        try:
            return await self._get(target, digest, patience)
        except UpstreamError as error:
            if error.cause is not Cause.MISSING:
                raise
            return await self._get(target, tag, patience)

    async def _head(self, target: Target, tag: str, patience: float | None) -> Head:
        try:
            return await self._origin(target).registry.head_manifest(target.remote, tag, patience=patience)
        except UpstreamError as error:
            await self._remember(target, tag, error)
            raise

    async def _get(self, target: Target, reference: Digest | str, patience: float | None) -> FetchedManifest:
        self._missing.check("manifest", target.repository, reference, target.upstream)
        try:
            return await self._origin(target).registry.get_manifest(
                target.remote, reference, patience=patience
            )
        except UpstreamError as error:
            await self._remember(target, reference, error)
            raise

    async def _remember(self, target: Target, reference: str, error: UpstreamError) -> None:
        if error.cause is Cause.MISSING:
            seconds = self._origin(target).missing_for
            await self._missing.remember("manifest", target.repository, reference, seconds)

    # Rows.

    async def _tag(self, target: Target, tag: str) -> tuple[TagRow, ImageRow] | None:
        row = await self._records.tag(target.repository, tag)
        image = None if row is None else await self._records.image(target.repository, row.digest)
        return None if row is None or image is None else (row, image)

    async def _keep(
        self, target: Target, fetched: FetchedManifest, tag: str | None, outcome: str = "miss"
    ) -> PulledManifest:
        """Record what came, then serve it; served all the same when the store cannot take it."""
        try:
            parsed = manifests.parse(fetched.body, fetched.media_type)
        except manifests.ManifestInvalid as error:
            what = f"sent a manifest for {target.remote} that is not valid: {error}"
            raise UpstreamError(Cause.PROTOCOL, what, target.upstream) from error
        now = self._clock()
        until = math.inf if tag is None else now + lifetime(self._origin(target).fresh, tag)
        try:
            await self._records.record_image(
                *(target.repository, target.upstream, fetched.digest, fetched.body, parsed, now, tag),
                settings=self._origin(target).born(target.repository),
            )
        except (OSError, StoreError) as error:
            log.warning("manifest not kept", repository=target.repository, error=str(error))
            metrics.UNCACHED.labels("disk").inc()
            outcome, until = "bypass", now
        return PulledManifest(fetched.digest, parsed.media_type, fetched.body, outcome, until)

    async def _confirm(self, target: Target, tag: str, image: ImageRow) -> PulledManifest:
        await self._note(target, tag, self._clock(), None)
        return _pulled(image, "hit", self._clock() + lifetime(self._origin(target).fresh, tag))

    async def _note(self, target: Target, tag: str, checked: float, pending: Digest | None) -> None:
        """What a full disk does not let us note is asked again: no pull fails for it."""
        try:
            await self._records.record_checked(target.repository, tag, checked, pending)
        except (OSError, StoreError) as error:
            log.warning("tag check not kept", repository=target.repository, tag=tag, error=str(error))

    # Freshness.

    def _origin(self, target: Target) -> Origin:
        return self._origins[target.upstream]

    def _decide(self, target: Target, tag: str, row: TagRow) -> object:
        return decide(_state(row), lifetime(self._origin(target).fresh, tag), self._clock())

    def _may_serve_stale(self, target: Target, row: TagRow, error: UpstreamError) -> bool:
        return may_serve_stale(_state(row), self._origin(target).stale, error, self._clock())

    def _stale_or_raise(
        self, target: Target, row: TagRow, image: ImageRow, error: UpstreamError
    ) -> PulledManifest:
        if not self._may_serve_stale(target, row, error):
            raise error
        cause = error.root.value
        metrics.STALE.labels(target.upstream, cause).inc()
        log.warning(
            "served stale", repository=target.repository, digest=row.digest, cause=cause, reason=error.message
        )
        now = self._clock()
        return replace(_pulled(image, "stale", now), age=max(0.0, now - row.checked), failure=error)


def _state(row: TagRow) -> TagState:
    return TagState(row.digest, row.checked, row.pending)


def _pulled(image: ImageRow, outcome: str, until: float) -> PulledManifest:
    return PulledManifest(image.digest, image.media_type, image.body, outcome, until)


def _as_fetched(image: ImageRow) -> FetchedManifest:
    return FetchedManifest(image.body, image.media_type, image.digest)


def _shared(pulled: PulledManifest, ours: bool) -> PulledManifest:
    return pulled if ours or pulled.outcome != "miss" else replace(pulled, outcome="coalesced")
