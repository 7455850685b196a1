"""Two hosted repositories, and what may happen to a blob and to images of it: steps that may be stopped."""

from __future__ import annotations

import json

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.collection import Collection
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.proofs import Proofs
from cacheproxy.store.pushing import NoRepository, Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.removal import Removal
from cacheproxy.store.taking import Pushed, Put
from tests.store.hosting import rows
from tests.store.images import CONFIG, IMAGE, LAYER, descriptor, index

BEGAN, NOW, GRACE = 100.0, 1000.0, 500.0
"""What was pushed when it began is due now."""

PLACES = """
SELECT location FROM blob WHERE location <> ''
INTERSECT SELECT path FROM trash
"""
INCOMPLETE = """
SELECT reference.image, reference.digest FROM reference
JOIN repository ON repository.id = reference.repository
JOIN blob ON blob.digest = reference.digest
LEFT JOIN link ON link.repository = reference.repository AND link.digest = reference.digest
WHERE repository.kind = 'hosted' AND (link.digest IS NULL OR blob.generation = 0)
"""


class World:
    """Two repositories of their own, a blob, and an image of it."""

    numbers = iter(range(10**6))

    def __init__(self, database: Database) -> None:
        self.database = database
        self.number = next(self.numbers)
        self.here, self.there, self.cached = (f"{name}/{self.number}" for name in ("here", "there", "cached"))
        self.data = f"layer {self.number}".encode()
        self.layer = Digest.of(self.data)
        self.more = f"more {self.number}".encode()
        self.second = Digest.of(self.more)
        self.body = self._body(self.data, self.data)
        self.image = Digest.of(self.body)
        self.referrer_body = self._body(self.data, subject=descriptor(IMAGE, self.image, len(self.body)))
        self.referrer = Digest.of(self.referrer_body)
        self.pair, self.riap = self._body(self.data, self.more), self._body(self.more, self.data)
        """Of the same blobs, in another order."""
        self.index_body = index(self.image)
        self.index = Digest.of(self.index_body)
        self.uploads = 0
        self.session = f"session {self.number}"

    def _body(self, *blobs: bytes, **more: object) -> bytes:
        """An image whose first blob is its config, and a layer, too, if it is alone."""
        config, *layers = (descriptor(LAYER, Digest.of(blob), len(blob)) for blob in blobs)
        manifest = {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": {**config, "mediaType": CONFIG},
            "layers": layers or [config],
        }
        return json.dumps({**manifest, **more}).encode()

    async def begin(self) -> None:
        for name in (self.here, self.there):
            await Hosted(self.database).create(name, Settings(sparse="nothing"), BEGAN)

    # Steps: each is one of the two that meet.

    async def upload(
        self, database: Database, name: str = "", now: float = NOW, data: bytes = b"", session: str = "s"
    ) -> bool:
        self.uploads += 1
        place, data = f"blobs/{self.number}.{self.uploads}", data or self.data
        record, digest = Pushing(database).record, Digest.of(data)
        try:
            name = name or self.here
            await record(name, session, digest, len(data), place, self.uploads, now, now + GRACE)
        except NoRepository:
            return False
        return True

    async def finish(self, database: Database) -> bool:
        """An upload that was begun."""
        return await self.upload(database, session=self.session)

    async def head(self, database: Database) -> int | None:
        return await Pushing(database).stands(self.here, self.layer, NOW, NOW + GRACE / 2, NOW + GRACE)

    async def mount(self, database: Database) -> int | None:
        return await Pushing(database).link(self.here, self.layer, NOW, NOW + GRACE, source=self.there)

    async def link(self, database: Database) -> int | None:
        return await Pushing(database).link(self.here, self.layer, NOW, NOW + GRACE)

    async def put(self, database: Database, *tags: str, now: float = NOW) -> bool:
        return await self._put(database, self.body, tags, now)

    async def tag(self, database: Database) -> bool:
        return await self.put(database, "latest")

    async def put_index(self, database: Database, now: float = NOW) -> bool:
        return await self._put(database, self.index_body, (), now)

    async def put_referrer(self, database: Database, now: float = NOW) -> bool:
        return await self._put(database, self.referrer_body, (), now)

    async def put_pair(self, database: Database, now: float = NOW) -> bool:
        return await self._put(database, self.pair, (), now)

    async def put_riap(self, database: Database, now: float = NOW) -> bool:
        return await self._put(database, self.riap, (), now, self.there)

    async def _put(
        self, database: Database, body: bytes, tags: tuple[str, ...], now: float, name: str = ""
    ) -> bool:
        pushed = Pushed(Digest.of(body), body, manifests.parse(body), tags)
        return isinstance(await Hosted(database).put(name or self.here, pushed, now), Put)

    async def ask(self, database: Database) -> bool:
        """For the image, by its digest."""
        await Hosted(database).stands(self.here, self.image, NOW + GRACE / 2, NOW + GRACE)
        return await self.has_image()

    async def remove_image(self, database: Database) -> bool:
        return await Hosted(database).remove(self.here, self.image, NOW, NOW + GRACE) is not None

    async def remove_index(self, database: Database, now: float = NOW) -> bool:
        return await Hosted(database).remove(self.here, self.index, now, now + GRACE) is not None

    async def remove_pair(self, database: Database) -> bool:
        return await Hosted(database).remove(self.here, Digest.of(self.pair), NOW, NOW + GRACE) is not None

    async def remove_riap(self, database: Database) -> bool:
        return await Hosted(database).remove(self.there, Digest.of(self.riap), NOW, NOW + GRACE) is not None

    async def unlink(self, database: Database) -> bool | None:
        return await Pushing(database).unlink(self.here, self.layer, NOW)

    async def delete_here(self, database: Database) -> bool:
        return await Hosted(database).delete(self.here, NOW, force=True)

    async def delete_there(self, database: Database) -> bool:
        return await Hosted(database).delete(self.there, NOW, force=True)

    async def sweep(self, database: Database, now: float = NOW) -> int:
        """What of this world is due: blobs that went."""
        collection = Collection(self.database)
        due = [
            item
            for item in await collection.due(now, 10**6)
            if item.digest in {self.layer, self.second, self.image, self.index, self.referrer}
        ]
        return (await Collection(database).sweep(due, now, GRACE)).blobs

    async def evict(self, database: Database) -> int:
        """As the eviction had chosen before."""
        chosen = [blob for blob in await Records(self.database).evictable(10**6) if blob.digest == self.layer]
        return len(await Records(database).evict(chosen, NOW))

    async def purge(self, database: Database) -> None:
        await Removal(database).remove(self.cached, [], [], NOW, whole=True, earnest=True)

    async def scrub(self, database: Database) -> None:
        """All that is stored is claimed, read, and proven."""
        proofs = Proofs(database)
        claimed = await proofs.claim(NOW, NOW, lambda size: NOW + 1, 10**6)
        await proofs.prove(claimed, NOW)

    # What is looked at.

    async def has_blob(self, name: str = "", digest: Digest | None = None) -> bool:
        row = await Records(self.database).blob(name or self.here, digest or self.layer)
        return row is not None and row.generation > 0

    async def has_image(self, digest: Digest | None = None) -> bool:
        return await Records(self.database).image(self.here, digest or self.image) is not None

    async def sound(self) -> None:
        assert await rows(self.database, PLACES) == [], "bytes of a blob are in the trash"
        assert await rows(self.database, INCOMPLETE) == [], "an image is not whole"
