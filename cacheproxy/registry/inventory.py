"""What is here and why: the whole store by upstream and repository, or one image and all that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.freshness import lifetime
from cacheproxy.core.manifest import Descriptor, ParsedManifest
from cacheproxy.core.routing import Target, Virtual
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.origin import Missing, Origin
from cacheproxy.store.records import Records
from cacheproxy.store.rows import ImageRow
from cacheproxy.store.survey import Damaged, Survey, Use

NAMED = 256
"""Images of one explanation: an index of more is no image that a person asks about."""


@dataclass(frozen=True, slots=True)
class TagFacts:
    checked: float
    """When the upstream last said what it means; seconds since the epoch, as all times here."""
    fresh_until: float | None
    """Until then nobody is asked; None: for ever."""
    moved: float
    pending: str | None
    """What the upstream says it means now, while that is not here."""


@dataclass(frozen=True, slots=True)
class BlobFacts:
    digest: str
    media_type: str
    size: int
    here: bool
    arriving: int | None
    """Bytes of a running download; None: there is none."""
    used: float | None
    shared_with: tuple[str, ...]
    """Other repositories that have it."""
    pinned: bool
    damaged: Damaged | None = None
    """The last time that its bytes here were found wrong, of late."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    digest: str
    media_type: str
    platform: str | None
    since: float | None
    """None: its manifest is not here."""
    tags: tuple[str, ...]
    blobs: tuple[BlobFacts, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    repository: str
    reference: str
    upstream: str
    tag: TagFacts | None
    pinned: tuple[str, ...]
    """Pins of this repository that are for this reference or its digest."""
    images: tuple[ImageFacts, ...]
    """What the reference means, then what that names; empty: nothing is here."""
    older_bytes: int | None
    """Bytes in the store that were used less recently than the first blob of these to go, and go before it;
    None: no blob is here."""
    missing: bool
    """The upstream said a moment ago that it has no such image, and is not asked again for a while."""
    kept_until: float | None
    """When the first of them goes unused, by the upstream's `keep`; None: never, or none is here."""


class Inventory:
    def __init__(
        self,
        records: Records,
        survey: Survey,
        fills: Fills,
        missing: Missing,
        origins: Mapping[str, Origin],
        keep: Mapping[str, float],
    ) -> None:
        """`keep`: seconds that what is not used stays, by upstream."""
        self._records = records
        self._survey = survey
        self._fills = fills
        self._missing = missing
        self._origins = origins
        self._keep = keep

    async def use(self) -> Use:
        return await self._survey.use()

    async def explain(self, target: Target, reference: Digest | str) -> Explanation:
        """What is here of an image. Asks no upstream, and changes nothing."""
        tag, digest = await self._tag(target, reference)
        images = [] if digest is None else await self._images(target, digest)
        pins = [name for repository, name in await self._records.pins() if repository == target.repository]
        used = [blob.used for image in images for blob in image.blobs if blob.here and blob.used is not None]
        return Explanation(
            target.repository,
            reference,
            target.upstream,
            tag,
            tuple(name for name in pins if name in (reference, digest)),
            tuple(images),
            await self._survey.older_bytes(min(used)) if used else None,
            self._missing.holds("manifest", target.repository, reference),
            self._kept_until(target, used),
        )

    async def explain_first(self, virtual: Virtual, reference: Digest | str) -> Explanation:
        """Of the first of its upstreams of which something is here; of the first, if there is nothing.

        Raises OCIError where the name is a hosted repository's.
        """
        for name in virtual.hosted:
            row = await self._records.repository(name)
            if row is not None and row.kind == "hosted":
                raise OCIError("NAME_UNKNOWN", f"{virtual.name} is {name}, which is hosted here")
        told = [await self.explain(target, reference) for target in virtual.cached]
        if not told:
            raise OCIError("NAME_UNKNOWN", f"nothing is hosted by that name in {', '.join(virtual.hosted)}")
        return next((each for each in told if any(image.since for image in each.images)), told[0])

    def _kept_until(self, target: Target, used: Sequence[float]) -> float | None:
        keep = self._keep.get(target.upstream, math.inf)
        return min(used) + keep if used and keep < math.inf else None

    async def _tag(self, target: Target, reference: Digest | str) -> tuple[TagFacts | None, Digest | None]:
        if isinstance(reference, Digest):
            return None, reference
        row = await self._records.tag(target.repository, reference)
        if row is None:
            return None, None
        fresh = row.checked + lifetime(self._origins[target.upstream].fresh, reference)
        if not (await self._records.settings(target.repository)).movable(reference):
            fresh = math.inf
        return TagFacts(row.checked, None if math.isinf(fresh) else fresh, row.moved, row.pending), row.digest

    async def _images(self, target: Target, digest: Digest) -> list[ImageFacts]:
        """The image, and all below it. A digest that nobody has heard of here gives none."""
        pinned = await self._records.pinned()
        found: list[ImageFacts] = []
        waiting: list[tuple[Digest, str | None]] = [(digest, None)]
        seen = {digest}
        while waiting and len(found) < NAMED:
            wanted, platform = waiting.pop(0)
            row = await self._records.image(target.repository, wanted)
            if row is None:
                if found:
                    found.append(ImageFacts(wanted, "", platform, None, (), ()))
                continue
            parsed = manifests.parse(row.body, row.media_type)
            found.append(await self._image(target, row, parsed, platform, pinned))
            for child in parsed.manifests:
                if child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append((child.digest, platform_of(child)))
        return found

    async def _image(
        self,
        target: Target,
        row: ImageRow,
        parsed: ParsedManifest,
        platform: str | None,
        pinned: frozenset[Digest],
    ) -> ImageFacts:
        use = await self._survey.image(target.repository, row.digest)
        blobs = [await self._blob(target, blob, blob.digest in pinned) for blob in _once(parsed.blobs)]
        since, tags = (None, ()) if use is None else (use.since, use.tags)
        return ImageFacts(row.digest, row.media_type, platform, since, tags, tuple(blobs))

    async def _blob(self, target: Target, named: Descriptor, pinned: bool) -> BlobFacts:
        use = await self._survey.blob(target.repository, named.digest)
        arriving = self._fills.held(named.digest)
        if use is None:
            return BlobFacts(named.digest, named.media_type, named.size, False, arriving, None, (), pinned)
        size = use.size if use.here else named.size
        used = use.used if use.here else None
        return BlobFacts(
            named.digest,
            named.media_type,
            size,
            use.here,
            arriving,
            used,
            use.sharers,
            pinned,
            use.damaged,
        )


def platform_of(descriptor: Descriptor) -> str | None:
    """As people write it, "linux/arm64/v8"; None: the descriptor names none."""
    platform = descriptor.platform or {}
    parts = [platform.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(str(part) for part in parts if part) or None


def _once(blobs: Iterable[Descriptor]) -> Iterable[Descriptor]:
    return {blob.digest: blob for blob in blobs}.values()
