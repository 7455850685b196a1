"""Purging: images that are to be gone, with all that only they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.routing import Target
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.listings import Listings
from cacheproxy.registry.trash import Trash
from cacheproxy.store.errors import Conflict, StoreError
from cacheproxy.store.removal import Gone, Graph, Removal, Removed

log = structlog.get_logger()

TRIES = 3
"""A pull may move a tag to what is being removed; then it is looked at again."""


Tags = list[tuple[str, Digest]]


@dataclass(frozen=True, slots=True)
class Purged:
    repository: str
    tags: tuple[str, ...]
    images: tuple[str, ...]
    blobs: int
    bytes: int
    """That are free now."""
    staying: int
    """Bytes that the images had, and that others have too."""


class Purge:
    def __init__(
        self,
        removal: Removal,
        trash: Trash,
        listings: Listings,
        fills: Fills,
        nursery: trio.Nursery,
        clock: Callable[[], float],
    ) -> None:
        self._removal = removal
        self._trash = trash
        self._listings = listings
        self._fills = fills
        self._nursery = nursery
        """Runs what has to wait for fills; outlives every purge."""
        self._clock = clock

    async def purge(self, target: Target, reference: Digest | str | None, *, earnest: bool) -> Purged:
        """Remove what a reference means, or (None) the whole repository; not in `earnest`, only say so.

        Raises OCIError: NAME_UNKNOWN and MANIFEST_UNKNOWN (404) for what is not here, DENIED (409) for what a
        pin holds.
        """
        tags, images, removed = await self._remove(target, reference, earnest, TRIES)
        if earnest:
            if removed.coming:
                self._nursery.start_soon(self._purge_arrived, removed.coming)
            await self._unlink(removed.gone)
            await self._listings.forget(target.repository)
            log.info("purged", repository=target.repository, images=len(images), blobs=len(removed.gone))
        return _told(target.repository, [name for name, _ in tags], images, removed)

    async def _purge_arrived(self, digests: Iterable[Digest]) -> None:
        """What was still arriving when its images went: its clients get it, and then it goes too."""
        for digest in digests:
            await self._fills.ended(digest)
        try:
            await self._unlink(await self._removal.drop_unnamed(digests, self._clock()))
        except (OSError, StoreError) as error:  # eviction takes what is left
            log.warning("blobs that arrived during a purge stay", error=str(error))

    async def _unlink(self, blobs: Iterable[Gone]) -> None:
        if places := {blob.location: blob.size for blob in blobs}:
            await self._trash.unlink(places)

    async def _remove(
        self, target: Target, reference: Digest | str | None, earnest: bool, tries: int
    ) -> tuple[Tags, set[Digest], Removed]:
        graph = await self._removal.graph(target.repository)
        if graph is None:
            raise OCIError("NAME_UNKNOWN", f"nothing of {target.repository} is here")
        tags, images = plan(graph, reference)
        if reference is not None and not tags and not images:
            raise OCIError("MANIFEST_UNKNOWN", f"{reference} of {target.repository} is not here")
        _refuse_pinned(graph, tags, images)
        remove, whole, now = self._removal.remove, reference is None, self._clock()
        try:
            removed = await remove(target.repository, tags, images, now, whole=whole, earnest=earnest)
        except Conflict:
            if tries > 1:
                return await self._remove(target, reference, earnest, tries - 1)
            raise
        return tags, images, removed


def plan(graph: Graph, reference: Digest | str | None) -> tuple[Tags, set[Digest]]:
    """The tags and the images that go.

    All, without a reference. By a digest: the image, whatever means it. By a tag: the tag, and the image if
    nothing else means it.
    """
    if reference is None:
        return list(graph.tags.items()), set(graph.images)
    if isinstance(reference, Digest):
        images = doomed(graph, reference) if reference in graph.images else set()
        return [(name, digest) for name, digest in graph.tags.items() if digest in images], images
    root = graph.tags.get(reference)
    if root is None:
        return [], set()
    left = {name: digest for name, digest in graph.tags.items() if name != reference}
    rest = replace(graph, tags=left)
    return [(reference, root)], set() if _needed(rest, set(), root) else doomed(rest, root)


def doomed(graph: Graph, root: Digest) -> set[Digest]:
    """The image, what is below it, and what refers to these: but for what a tag or another index means."""
    gone = {root}
    while more := {digest for digest in _named(graph, gone) if not _needed(graph, gone, digest)} - gone:
        gone |= more
    return gone


def _named(graph: Graph, images: set[Digest]) -> set[Digest]:
    below = {child for image in images for child in graph.children.get(image, ()) if child in graph.images}
    return below | {digest for digest, subject in graph.images.items() if subject in images}


def _needed(graph: Graph, gone: set[Digest], digest: Digest) -> bool:
    tagged = digest in graph.tags.values()
    return tagged or any(digest in named for index, named in graph.children.items() if index not in gone)


def _refuse_pinned(graph: Graph, tags: Tags, images: set[Digest]) -> None:
    names = {name for name, _ in tags}
    holding = sorted(pin for pin in graph.pins if pin in names or _below(graph, pin) & images)
    if holding:
        what = f"it is held by the pin of {', '.join(holding)}; unpin that first"
        raise OCIError("DENIED", what, status=409)


def _below(graph: Graph, pin: str) -> set[Digest]:
    """All images that a pin holds."""
    root = graph.tags.get(pin)
    held = {digest for digest in graph.images if digest in (root, pin)}
    while more := {child for image in held for child in graph.children.get(image, ())} - held:
        held |= more
    return held


def _told(repository: str, tags: Iterable[str], images: Iterable[Digest], removed: Removed) -> Purged:
    size = sum(blob.size for blob in removed.gone)
    return Purged(
        repository, tuple(sorted(tags)), tuple(sorted(images)), len(removed.gone), size, removed.staying
    )
