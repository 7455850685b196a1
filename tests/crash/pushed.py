"""What is pushed into hosted repositories, and what its pushers, and those who delete, were told of it.

An image belongs to one repository, and to one client at a time (`taken`): whoever pushes or deletes it. What
nobody has at the time is certain: told, or gone; or nobody knows, since the answer did not come.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from tests.crash.world import KIB, MIB
from tests.origin.content import sha256

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

REPOSITORIES = tuple(f"team/r{number}" for number in range(5))
SIZES = (1, 3 * KIB, 70 * KIB, 300 * KIB, MIB, 2 * MIB + 777)
SHARED = 5
"""Layers of each size that all images choose from: what goes in one place is just coming in another."""


class State(Enum):
    TOLD = "told"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(eq=False)
class Item:
    """A manifest in its repository."""

    repository: str
    body: bytes
    media_type: str
    blobs: tuple[str, ...] = ()
    children: tuple[Item, ...] = ()
    subject: Item | None = None
    state: State = State.GONE
    taken: bool = False
    version: int = 0
    """Counts what happens to it: whoever sees the same one twice saw a certain state in between."""

    def __post_init__(self) -> None:
        self.digest = sha256(self.body)

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.digest}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest[:19]}"


@dataclass(eq=False)
class Tag:
    """One pusher's own."""

    repository: str
    name: str
    meanings: set[str | None] = field(default_factory=lambda: {None})
    """Digests that it may mean; None: there may be none."""
    version: int = 0

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.name}"


class Shelf:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.blobs: dict[str, bytes] = {}
        self.layers = [self._new(rng.randbytes(size)) for size in SIZES * SHARED]
        self.items: list[Item] = []
        self.tags: list[Tag] = []
        self.wrong: list[str] = []
        self.counts: dict[str, int] = {}

    # What there is to push.

    def image(self, repository: str, subject: Item | None = None) -> Item:
        config = self._new(json.dumps({"of": repository, "salt": self._rng.random()}).encode())
        layers = self._rng.sample(self.layers, self._rng.randint(1, 4))
        manifest = {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": self._descriptor(CONFIG, config),
            "layers": [self._descriptor(LAYER, layer) for layer in layers],
        }
        if subject is not None:
            manifest |= {"artifactType": "test/about", "subject": _described(subject)}
        body = json.dumps(manifest).encode()
        return self._add(Item(repository, body, IMAGE, (config, *layers), subject=subject))

    def index(self, repository: str, children: tuple[Item, ...]) -> Item:
        manifest = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [_described(child) for child in children],
            "annotations": {"salt": str(self._rng.random())},
        }
        return self._add(Item(repository, json.dumps(manifest).encode(), INDEX, children=children))

    def tag(self, repository: str, name: str) -> Tag:
        self.tags.append(Tag(repository, name))
        return self.tags[-1]

    def _add(self, item: Item) -> Item:
        self.items.append(item)
        return item

    def _new(self, data: bytes) -> str:
        self.blobs[sha256(data)] = data
        return sha256(data)

    def _descriptor(self, media_type: str, digest: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": digest, "size": len(self.blobs[digest])}

    # Who does what with it.

    def free(self, *states: State, repository: str = "") -> list[Item]:
        return [
            item
            for item in self.items
            if not item.taken and item.state in states and repository in ("", item.repository)
        ]

    def held(self, item: Item) -> bool:
        """Whether an index that may be there names it: then it is not taken out by itself."""
        return any(
            item in other.children and (other.taken or other.state is not State.GONE) for other in self.items
        )

    def loose(self, item: Item) -> bool:
        """Whether its index or its subject may just be going: then a push of it promises nothing."""
        return any(other.taken and (item in other.children or item.subject is other) for other in self.items)

    @contextmanager
    def taking(self, *items: Item) -> Iterator[None]:
        for item in items:
            assert not item.taken
            item.taken = True
            item.version += 1
        try:
            yield
        finally:
            for item in items:
                item.taken = False
                item.version += 1

    def orphaned_by(self, item: Item) -> list[Item]:
        """What loses a reason to be here with it: nobody knows how long it stays."""
        return [other for other in self.items if other in item.children or other.subject is item]

    def loosen(self, items: Iterable[Item]) -> None:
        for item in items:
            item.version += 1
            if item.state is State.TOLD:
                item.state = State.UNKNOWN

    def tags_of(self, item: Item) -> list[Tag]:
        return [tag for tag in self.tags if tag.repository == item.repository and item.digest in tag.meanings]

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _described(item: Item) -> dict[str, object]:
    return {"mediaType": item.media_type, "digest": item.digest, "size": len(item.body)}
