"""What images consist of, as far as their manifests say it: collected bit by bit, whoever reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cacheproxy.core import manifest, media
from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import Descriptor, ManifestInvalid

MOST = 200_000
"""Manifests, and blobs, of one tree: what a hostile index may make anybody remember."""


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest."""

    media_type: str
    size: int
    children: tuple[Digest, ...]
    blobs: tuple[Digest, ...]


@dataclass(slots=True)
class Blob:
    size: int
    needed: bool
    """False: a layer that is to be had elsewhere (image-spec, "Non-Distributable Layers")."""


@dataclass(slots=True)
class Tree:
    nodes: dict[Digest, Node] = field(default_factory=dict)
    blobs: dict[Digest, Blob] = field(default_factory=dict)
    absent: set[Digest] = field(default_factory=set)
    """Children that could not be had."""

    def add(self, digest: Digest, body: bytes, media_type: str | None) -> list[tuple[Digest, str]]:
        """Take a manifest: the children that are not known yet, with their media types.

        Raises ManifestInvalid, also for a body that is not the digest's.
        """
        if Digest.of(body, digest.algorithm) != digest:
            raise ManifestInvalid(f"the bytes of the manifest {digest} are not its own")
        try:
            parsed = manifest.parse(body, media_type or None)
        except ManifestInvalid as error:
            raise ManifestInvalid(f"the manifest {digest}: {error}") from None
        children = [
            child for child in parsed.manifests if child.media_type in media.KINDS or not child.media_type
        ]
        # Builders keep their caches as an index that names layers.
        layers = [child for child in parsed.manifests if child not in children]
        blobs = (*parsed.blobs, *layers)
        for blob in blobs:
            self._take(blob)
        self.nodes[digest] = Node(
            parsed.media_type,
            len(body),
            tuple(child.digest for child in children),
            tuple(blob.digest for blob in blobs),
        )
        if len(self.nodes) > MOST or len(self.blobs) > MOST:
            raise ManifestInvalid(f"more than {MOST} manifests or blobs")
        unknown = {child.digest: child.media_type for child in children if child.digest not in self.nodes}
        return list(unknown.items())

    def below(self, roots: Iterable[Digest]) -> list[Digest]:
        """The manifests that are reached from there, each after all that it names."""
        ordered: dict[Digest, None] = {}
        entered: set[Digest] = set()
        waiting = list(roots)[::-1]
        while waiting:
            digest = waiting[-1]
            node = self.nodes.get(digest)
            if node is None or digest in ordered:
                waiting.pop()
            elif digest in entered:
                ordered[waiting.pop()] = None
            else:
                entered.add(digest)
                waiting += [child for child in node.children if child not in entered]
        return list(ordered)

    def blobs_of(self, digests: Iterable[Digest]) -> Mapping[Digest, Blob]:
        """Of these manifests."""
        return {blob: self.blobs[blob] for digest in digests for blob in self.nodes[digest].blobs}

    def _take(self, blob: Descriptor) -> None:
        known = self.blobs.setdefault(blob.digest, Blob(blob.size, needed=False))
        if known.size != blob.size:
            raise ManifestInvalid(f"two manifests disagree on the size of {blob.digest}")
        known.needed = known.needed or not manifest.foreign(blob)
