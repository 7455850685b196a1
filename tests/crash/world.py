"""What the upstream has: repositories whose tags move, and images that share layers."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.origin import Content
from tests.origin.content import sha256

KIB, MIB = 1 << 10, 1 << 20
REPOSITORIES = 10
TAGS = ("latest", "edge")
SIZES = (1, 3 * KIB, 70 * KIB, 300 * KIB, MIB, MIB + 5, 2 * MIB + 777, 3 * MIB + 1)
"""Bytes of the layers that many images have: from MIB on they come in ranged transfers."""

PINNED = "library/pinned"
"""Never moves, is never purged, and is pinned: it can be counted on."""


@dataclass(frozen=True)
class Image:
    repository: str
    digest: str
    manifest: bytes
    blobs: tuple[str, ...]

    def path(self, reference: str = "") -> str:
        return f"{manifests(self.repository)}{reference or self.digest}"

    def blob(self, digest: str) -> str:
        return f"/v2/docker-hub/{self.repository}/blobs/{digest}"


def manifests(repository: str) -> str:
    return f"/v2/docker-hub/{repository}/manifests/"


class World:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.content = Content()
        self.blobs: dict[str, bytes] = {}
        self.images: dict[tuple[str, str], Image] = {}
        """By repository and digest."""
        self.history: dict[tuple[str, str], list[str]] = {}
        """What a tag has meant, by repository and tag: digests, the newest last."""
        self._layers = [self._new(size) for size in SIZES * 2]
        self.repositories = [f"library/r{number}" for number in range(REPOSITORIES)]
        for repository in (PINNED, *self.repositories):
            for tag in TAGS:
                self.move(repository, tag)

    def move(self, repository: str, tag: str) -> None:
        """The tag means a new image, which shares most of its layers with others."""
        shared = self._rng.sample(self._layers, 3)
        layers = [self.blobs[digest] for digest in (*shared, self._new(self._rng.choice(SIZES[:3])))]
        config = json.dumps({"of": repository, "salt": self._rng.random()}).encode()
        digest = self.content.add_image(repository, tag, layers, config)
        self.blobs[sha256(config)] = config
        body = self.content.manifests[repository][digest].body
        blobs = (sha256(config), *map(sha256, layers))
        self.images[repository, digest] = Image(repository, digest, body, tuple(dict.fromkeys(blobs)))
        self.history.setdefault((repository, tag), []).append(digest)

    def age(self, repository: str, tag: str, digest: str) -> int:
        """How often the tag had moved when it meant this image. Raises ValueError when it never did."""
        return self.history[repository, tag].index(digest)

    def names(self, digest: str) -> Image:
        """An image that has the blob."""
        return next(image for image in self.images.values() if digest in image.blobs)

    def sizes(self) -> Mapping[str, int]:
        return {digest: len(data) for digest, data in self.blobs.items()}

    def _new(self, size: int) -> str:
        data = self._rng.randbytes(size)
        self.blobs[sha256(data)] = data
        return sha256(data)
