"""Pushes, mounts, deletions, evictions, the collection, in any order: what was told holds after each step."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.collection import Collection
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.taking import Pushed, Put
from tests.store.hosting import rows
from tests.store.images import CONFIG, IMAGE, LAYER, descriptor, index
from tests.store.racing import INCOMPLETE, PLACES

GRACE = 100.0
STEPS = 150
NAMES = ("team/a", "team/b")
CACHED = "hub/c"
LAYERS = [f"layer {number}".encode() for number in range(4)]
DIGESTS = {Digest.of(data): data for data in LAYERS}


def image(*layers: bytes, subject: Digest | None = None) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(CONFIG, Digest.of(layers[0]), len(layers[0])),
        "layers": [descriptor(LAYER, Digest.of(data), len(data)) for data in layers],
    }
    if subject is not None:
        document["subject"] = descriptor(IMAGE, subject, 100)
    return json.dumps(document).encode()


PLAIN = [image(LAYERS[0], LAYERS[1]), image(LAYERS[1], LAYERS[2]), image(LAYERS[3])]
SIGNATURE = image(LAYERS[2], subject=Digest.of(PLAIN[0]))
INDEXES = [index(Digest.of(PLAIN[0]), Digest.of(PLAIN[1])), index(Digest.of(PLAIN[1]), Digest.of(SIGNATURE))]
BODIES = {Digest.of(body): body for body in [*PLAIN, SIGNATURE, *INDEXES]}
PARSED = {digest: manifests.parse(body) for digest, body in BODIES.items()}


class Story:
    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.random = random.Random(seed)
        self.pushing, self.hosted = Pushing(database), Hosted(database)
        self.collection, self.records = Collection(database), Records(database)
        self.now, self.places = 1000.0, 0
        self.told: dict[tuple[str, Digest], float] = {}
        """Until when somebody may count on a repository's blob."""
        self.images: dict[str, set[Digest]] = {name: set() for name in NAMES}
        """Those that have to be there."""
        self.steps: list[Callable[[], Awaitable[None]]] = [
            *[self.upload] * 4,
            *[self.put] * 6,
            *[self.collect] * 3,
            *[self.wait] * 3,
            *(self.head, self.mount, self.unlink, self.untag, self.fill, self.evict),
            *[self.remove] * 2,
        ]

    def any_name(self) -> str:
        return self.random.choice(NAMES)

    def any_layer(self) -> Digest:
        return self.random.choice(list(DIGESTS))

    def place(self) -> tuple[str, int]:
        self.places += 1
        return f"blobs/{self.places}", self.places

    async def upload(self) -> None:
        name, digest = self.any_name(), self.any_layer()
        until, size = self.now + GRACE, len(DIGESTS[digest])
        await self.pushing.record(name, "s", digest, size, *self.place(), self.now, until)
        self.told[name, digest] = until

    async def head(self) -> None:
        name, digest = self.any_name(), self.any_layer()
        least = self.now + GRACE / 2
        if await self.pushing.stands(name, digest, self.now, least, self.now + GRACE) is not None:
            self.told[name, digest] = max(least, self.told.get((name, digest), 0.0))

    async def mount(self) -> None:
        source, name = self.random.sample(NAMES, 2)
        digest, until = self.any_layer(), self.now + GRACE
        if await self.pushing.link(name, digest, self.now, until, source=source) is not None:
            self.told[name, digest] = until

    async def unlink(self) -> None:
        name, digest = self.any_name(), self.any_layer()
        if await self.pushing.unlink(name, digest, self.now):
            self.told.pop((name, digest), None)

    async def put(self) -> None:
        name, digest = self.any_name(), self.random.choice(list(BODIES))
        tags = ("latest",) if self.random.random() < 0.3 else ()
        pushed = Pushed(digest, BODIES[digest], PARSED[digest], tags)
        if isinstance(await self.hosted.put(name, pushed, self.now), Put):
            self.images[name].add(digest)

    async def untag(self) -> None:
        await self.hosted.untag(self.any_name(), "latest", self.now)

    async def remove(self) -> None:
        name, digest = self.any_name(), self.random.choice(list(BODIES))
        if await self.hosted.remove(name, digest, self.now, self.now + GRACE) is None:
            return
        freed = {child.digest for child in PARSED[digest].manifests}
        freed |= {
            other for other, parsed in PARSED.items() if parsed.subject and parsed.subject.digest == digest
        }
        self.images[name] -= freed | {digest}

    async def fill(self) -> None:
        """As a pull would bring it into the cache."""
        digest = self.any_layer()
        size = len(DIGESTS[digest])
        await self.records.record_link(CACHED, "hub", digest, size, self.now)
        await self.records.record_blob(digest, size, *self.place(), self.now)

    async def evict(self) -> None:
        await self.records.evict(await self.records.evictable(10), self.now)

    async def wait(self) -> None:
        self.now += self.random.choice([1.0, GRACE / 3, GRACE])

    async def collect(self) -> None:
        items = await self.collection.due(self.now, 1000)
        doomed = await self.collection.doomed(self.now)
        dry = await self.collection.sweep(items, self.now, GRACE, earnest=False)
        swept = await self.collection.sweep(items, self.now, GRACE)
        assert swept == dry
        assert doomed.blobs == swept.blobs
        assert doomed.images >= swept.images

    async def check(self) -> None:
        assert await rows(self.database, PLACES) == []
        assert await rows(self.database, INCOMPLETE) == []
        for (name, digest), until in self.told.items():
            if until > self.now:
                row = await self.records.blob(name, digest)
                assert row is not None
                assert row.generation > 0
        for name, images in self.images.items():
            for digest in images:
                assert await self.records.image(name, digest) is not None

    async def end(self) -> None:
        """With the repositories goes all that they had, and nothing of the cache."""
        for name in NAMES:
            assert await self.hosted.delete(name, self.now, force=True)
        self.now += 2 * GRACE
        await self.collect()
        for table in ("review", "manifest", "image", "reference"):
            assert await rows(self.database, f"SELECT * FROM {table}") == []
        assert await rows(self.database, "SELECT digest FROM blob EXCEPT SELECT digest FROM link") == []


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield database


@pytest.mark.parametrize("seed", range(12))
async def test_what_was_told_holds(database: Database, seed: int) -> None:
    story = Story(database, seed)
    for name in NAMES:
        await story.hosted.create(name, Settings(), story.now)
    for _ in range(STEPS):
        await story.random.choice(story.steps)()
        await story.check()
    await story.end()
