"""Manifests, blobs and lists of hosted repositories. A change is whole and durable before it is answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial as bind
from typing import Any

import structlog

from cacheproxy.core import manifest as manifests
from cacheproxy.core.blob import BlobView
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.manifest import ManifestInvalid, ParsedManifest
from cacheproxy.core.settings import Settings
from cacheproxy.registry.blobs import Address, Located
from cacheproxy.registry.manifests import PulledManifest
from cacheproxy.registry.push import GRACE, Push
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.repositories import settled, unknown
from cacheproxy.registry.standby import Standby, StoreFailure
from cacheproxy.store.content import Content
from cacheproxy.store.errors import BlobMissing
from cacheproxy.store.hosted import Hosted, Referrer
from cacheproxy.store.pushing import NoRepository
from cacheproxy.store.records import Records
from cacheproxy.store.rows import BlobRow
from cacheproxy.store.taking import Pushed, Put, Refused

log = structlog.get_logger()

PAGE = 1000
"""Repositories that are looked at in one go."""

QUOTAS = {
    "bytes": "has reached its quota of bytes",
    "images": "has reached its quota of images",
}


class Hosting:
    """`repository` is hosted. All raise OCIError, and StoreError and OSError where the store fails."""

    def __init__(
        self,
        hosted: Hosted,
        records: Records,
        content: Content,
        push: Push,
        quarantine: Quarantine,
        clock: Callable[[], float],
        changed: Callable[[], None],
        address: Address | None = None,
        grace: float = GRACE,
    ) -> None:
        """`changed` is called when a tag has moved, or something is gone, before anybody hears of it."""
        self._hosted = hosted
        self._records = records
        self._content = content
        self._push = push
        self._quarantine = quarantine
        self._clock = clock
        self._changed = changed
        self._address = address
        self._grace = grace

    async def manifest(self, repository: str, reference: Digest | str) -> PulledManifest:
        """Whoever hears of it by its digest may count on it for half the grace."""
        if isinstance(reference, Digest):
            digest: Digest | None = reference
            now = self._clock()
            stands = await self._hosted.stands(
                repository, reference, now + self._grace / 2, now + self._grace
            )
        else:
            digest, stands = await self._meaning(repository, reference), math.inf
        image = None if digest is None else await self._records.image(repository, digest)
        if image is None:
            raise OCIError("MANIFEST_UNKNOWN", f"{repository} has no image {reference}")
        return PulledManifest(image.digest, image.media_type, image.body, "hit", stands - self._grace / 2)

    async def put(
        self,
        repository: str,
        reference: Digest | str,
        tags: Sequence[str],
        media_type: str,
        body: bytes,
        birth: Settings | None = None,
    ) -> tuple[Digest, ParsedManifest]:
        """Take a manifest: its digest, and what it says.

        `birth`: how the repository is made if it is not there; it is not by a manifest that is refused.
        """
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        digest = Digest.of(body, algorithm)
        if isinstance(reference, Digest):
            if digest != reference:
                raise OCIError("DIGEST_INVALID", f"what was sent is {digest}, not {reference}")
        else:
            tags = [reference, *tags]
        try:
            parsed = manifests.parse(body, media_type or None)
        except ManifestInvalid as error:
            raise OCIError("MANIFEST_INVALID", str(error)) from error
        pushed = Pushed(digest, body, parsed, tuple(sorted(set(tags))))
        try:
            put = bind(self._hosted.put, repository, pushed, self._clock(), birth)
            answer = await settled(put, self._changed, _moves)
        except NoRepository:
            raise unknown(repository) from None
        if isinstance(answer, Refused):
            raise _refusal(repository, answer)
        if answer.born:
            log.info("repository created by a push", repository=repository)
        return digest, parsed

    async def delete(self, repository: str, reference: Digest | str) -> None:
        """An image with its tags, or one tag."""
        try:
            if isinstance(reference, Digest):
                now = self._clock()
                remove = bind(self._hosted.remove, repository, reference, now, now + self._grace)
                gone = await settled(remove, self._changed, _removed) is not None
            else:
                untag = bind(self._hosted.untag, repository, reference, self._clock())
                gone = await settled(untag, self._changed) is not None
        except NoRepository:
            raise unknown(repository) from None
        if not gone:
            raise OCIError("MANIFEST_UNKNOWN", f"{repository} has no image {reference}")

    async def locate(self, repository: str, digest: Digest) -> Located:
        """A blob: whoever hears of it may count on it for a while."""
        size = await self._push.find(repository, digest)
        row = None if size is None else await self._records.blob(repository, digest)
        if size is None or row is None:
            raise OCIError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")
        return Located(size, row, "hit")

    async def open(self, repository: str, digest: Digest) -> tuple[BlobView, str]:
        row = await self._records.blob(repository, digest)
        if row is None or row.generation == 0:
            raise OCIError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")
        try:
            stored = self._content.open(digest, row.location, row.size)
        except BlobMissing as error:
            raise await self._damaged(row, error) from error
        return Standby(stored, bind(self._otherwise, row)), "hit"

    async def _otherwise(self, row: BlobRow, failure: StoreFailure) -> BlobView:
        """There is no other way to what was pushed, but to say what is the matter. Raises OCIError."""
        if isinstance(failure, BlobMissing):
            raise await self._damaged(row, failure) from failure
        log.warning("store failed", digest=row.digest, error=str(failure))
        said = "the store of blobs does not answer, or cannot be read; try again"
        raise OCIError("UNAVAILABLE", said, headers=(("Retry-After", "5"),)) from failure

    async def _damaged(self, row: BlobRow, failure: BlobMissing) -> OCIError:
        await self._quarantine.put(row, failure)
        return OCIError(
            "BLOB_UNKNOWN", f"the bytes of {row.digest} are damaged, and were put aside; push it again"
        )

    async def address(self, digest: Digest, found: Located) -> str | None:
        """Where the client may fetch a stored blob itself; None: it has to come from us."""
        if self._address is None or found.row is None:
            return None
        try:
            return await self._address(found.row.location, found.size)
        except (BlobMissing, OSError):
            return None  # opening the blob finds the same

    async def tags(self, repository: str, last: str, n: int) -> list[str]:
        return await self._hosted.tags(repository, last, n)

    async def names(self, last: str, n: int, listed: Callable[[str], bool]) -> tuple[list[str], bool]:
        """Up to `n` repositories behind `last` that the caller may see, and whether there may be more."""
        found: list[str] = []
        while len(found) <= n:
            page = await self._hosted.names(last, PAGE)
            found += filter(listed, page)
            if len(page) < PAGE:
                break
            last = page[-1]
        return found[:n], len(found) > n

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None, last: str, n: int
    ) -> list[dict[str, Any]]:
        """Up to `n` descriptors behind `last`, in the order of their digests."""
        found = await self._hosted.referrers(repository, subject, artifact_type, last, n)
        return [_descriptor(referrer) for referrer in found]

    async def _meaning(self, repository: str, tag: str) -> Digest | None:
        row = await self._records.tag(repository, tag)
        return None if row is None else row.digest


def _removed(tags: tuple[str, ...] | None) -> bool:
    """Whether there was an image: it may have had no tag."""
    return tags is not None


def _moves(answer: Put | Refused) -> bool:
    """Whether a tag, or the repository's name, means another image than before."""
    if isinstance(answer, Refused):
        return False
    return answer.born or any(before is not None for before in answer.moved.values())


def _descriptor(referrer: Referrer) -> dict[str, Any]:
    """As the list of referrers shows it (distribution-spec, "Listing Referrers")."""
    parsed = manifests.parse(referrer.body, referrer.media_type)
    listed = {
        "mediaType": referrer.media_type,
        "digest": str(referrer.digest),
        "size": referrer.size,
        "artifactType": referrer.artifact_type,
        "annotations": parsed.annotations,
    }
    return {key: value for key, value in listed.items() if value}


def _refusal(repository: str, refused: Refused) -> OCIError:
    if refused.missing:
        missing = ", ".join(refused.missing[:5])
        return OCIError(
            "MANIFEST_BLOB_UNKNOWN",
            f"{repository} has not got what the manifest names: push it first ({missing})",
            detail={"missing": list(map(str, refused.missing[:100]))},
        )
    if refused.fixed:
        said = f"tags of {repository} stay where they are, and these mean another image"
        return OCIError("TAG_INVALID", f"{said}: {', '.join(refused.fixed)}", detail={"tags": refused.fixed})
    if refused.retyped:
        return OCIError("MANIFEST_INVALID", f"the same bytes are here as {refused.retyped}")
    said = f"{repository} {QUOTAS[refused.over]}: delete images, or have it raised"
    return OCIError("TOOMANYREQUESTS", said)
