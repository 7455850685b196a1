"""Images that are brought before anybody pulls them, the same way a pull would."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import Literal

import structlog
import trio

from cacheproxy.core import manifest as manifests
from cacheproxy.core.blob import BlobBroken, BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.failures import UpstreamError
from cacheproxy.core.manifest import Descriptor, ManifestInvalid
from cacheproxy.core.routing import Target
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.flights import FlightLost
from cacheproxy.registry.inventory import platform_of
from cacheproxy.registry.manifests import Manifests
from cacheproxy.store.errors import StoreError

log = structlog.get_logger()

AT_ONCE = 2
"""Blobs, over all jobs: whoever pulls has most of an upstream's connections for himself."""

JOBS = 64
"""That are remembered; the oldest ended one is forgotten first."""

ALL = "all"
"""Instead of platforms: everything that an index names."""


class NotPrefetched(Exception):
    """The image cannot be had like this; the message says why."""


EXPECTED = (
    BlobBroken,
    FlightLost,
    ManifestInvalid,
    NotPrefetched,
    OCIError,
    OSError,
    StoreError,
    UpstreamError,
)


@dataclass(slots=True)
class Progress:
    """Of one image."""

    reference: str
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    blobs: int = 0
    """That it takes, as far as that is known."""
    here: int = 0
    size: int = 0
    """Bytes of all of them."""
    held: int = 0
    uncached: int = 0
    """Blobs that were not kept: for want of room, or for `trouble`."""
    trouble: str = ""
    """What is wrong with the disk."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Wished:
    text: str
    target: Target
    reference: Digest | str


@dataclass(slots=True)
class _Job:
    images: list[Progress]
    ended: bool = False


class Prefetch:
    def __init__(
        self,
        manifests: Manifests,
        blobs: Blobs,
        fills: Fills,
        nursery: trio.Nursery,
        before: Prefetch | None = None,
    ) -> None:
        """The jobs of the one from `before` a reload go on, and are remembered here."""
        self._manifests = manifests
        self._blobs = blobs
        self._fills = fills
        self._nursery = nursery
        """Owned by the application: a job goes on when its command has left."""
        self._slots: trio.CapacityLimiter = before._slots if before else trio.CapacityLimiter(AT_ONCE)
        self._jobs: OrderedDict[str, _Job] = before._jobs if before else OrderedDict()

    def start(self, wanted: Sequence[Wished], platforms: Sequence[str]) -> str:
        """A job for these images, one after the other; `platforms` are "linux/amd64" or "all". Its name.

        Raises OCIError (503) when too many are running.
        """
        self._forget_one()
        job = _Job([Progress(image.text) for image in wanted])
        name = secrets.token_hex(8)
        self._jobs[name] = job
        self._nursery.start_soon(self._run, job, tuple(wanted), frozenset(platforms))
        return name

    def progress(self, name: str) -> list[Progress]:
        """Raises OCIError (404) for a job that nobody remembers."""
        job = self._jobs.get(name)
        if job is None:
            raise OCIError("NAME_UNKNOWN", f"there is no job {name}: it ended long ago, or the daemon did")
        return job.images

    async def again(self, target: Target, digest: Digest) -> str:
        """Bring one blob, in line with those of the jobs. Why not, or ""."""
        progress = Progress(target.repository)
        reason = await _failure(bind(self._blob, target, digest, progress))
        return reason or progress.trouble or ("there was no room for it" if progress.uncached else "")

    def _forget_one(self) -> None:
        if len(self._jobs) < JOBS:
            return
        ended = next((name for name, job in self._jobs.items() if job.ended), None)
        if ended is None:
            raise OCIError("UNAVAILABLE", f"{JOBS} jobs are running: wait for one of them", status=503)
        del self._jobs[ended]

    async def _run(self, job: _Job, wanted: Iterable[Wished], platforms: frozenset[str]) -> None:
        try:
            for image, progress in zip(wanted, job.images, strict=True):
                progress.state = "running"
                progress.error = await _failure(bind(self._image, image, platforms, progress))
                progress.state = "failed" if progress.error else "done"
                log.info("prefetched", image=image.text, state=progress.state, reason=progress.error)
        finally:
            job.ended = True

    async def _image(self, wanted: Wished, platforms: frozenset[str], progress: Progress) -> None:
        blobs = await self._needed(wanted, platforms)
        progress.blobs, progress.size = len(blobs), sum(blobs.values())
        async with trio.open_nursery() as nursery:
            for digest in blobs:
                nursery.start_soon(self._blob, wanted.target, digest, progress)

    async def _needed(self, wanted: Wished, platforms: frozenset[str]) -> dict[Digest, int]:
        """The blobs of the image, and of those of its images that are for the platforms, with their sizes."""
        blobs: dict[Digest, int] = {}
        waiting, seen = [wanted.reference], {wanted.reference}
        while waiting:
            pulled = await self._manifests.get(wanted.target, waiting.pop(0))
            parsed = manifests.parse(pulled.body, pulled.media_type)
            blobs |= {blob.digest: blob.size for blob in parsed.blobs}
            for child in chosen(parsed.manifests, platforms):
                if child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append(child.digest)
        return blobs

    async def _blob(self, target: Target, digest: Digest, progress: Progress) -> None:
        async with self._slots:
            view, outcome = await self._blobs.open(target, digest)
            try:
                cached = outcome == "hit" or (outcome != "bypass" and await _arrived(view, progress))
            finally:
                view.close()
            trouble = await self._fills.ended(digest)
        if cached:
            progress.here += 1
            progress.held += view.size if outcome == "hit" else 0
        else:
            progress.uncached += 1
            progress.trouble = trouble or progress.trouble


async def _arrived(view: BlobView, progress: Progress) -> bool:
    """Follow a blob that is being fetched to its end; False: it is not being kept, and is left alone."""
    span, offset = Span(0, view.size, bounded=False), 0
    while offset < view.size:
        count = await view.available(offset, span)
        if view.fileno() is None:
            return False
        offset += count
        progress.held += count
    return True


def chosen(children: Sequence[Descriptor], platforms: frozenset[str]) -> list[Descriptor]:
    """The images of an index that are for one of the platforms, and those that name none: indexes within it.

    "linux/arm" means all of its variants. Raises NotPrefetched when none is.
    """
    found = [child for child in children if ALL in platforms or _fits(platform_of(child), platforms)]
    if children and not found:
        known = ", ".join(sorted({platform_of(child) or "none" for child in children}))
        raise NotPrefetched(f"there is no image for {', '.join(sorted(platforms))}, but for {known}")
    return found


def _fits(platform: str | None, platforms: frozenset[str]) -> bool:
    return platform is None or any(
        platform == wanted or platform.startswith(f"{wanted}/") for wanted in platforms
    )


async def _failure(bring: Callable[[], Awaitable[None]]) -> str:
    """Why it could not be brought; "" when it was. A fault of ours ends one image, not the daemon."""
    try:
        await bring()
    except Exception as error:
        reason = _leaf(error)
        if not isinstance(reason, EXPECTED):
            log.exception("prefetch failed")
        return str(reason) or type(reason).__name__
    return ""


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
