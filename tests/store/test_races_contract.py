"""What the collection meets, in each order, stopped before each statement: nothing that was told is lost.

On PostgreSQL two transactions really meet. SQLite runs one after the other: there only the order counts.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.collection import Collection
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.removal import Removal
from cacheproxy.store.taking import Pushed, Put
from tests.postgres import server
from tests.store.hosting import rows
from tests.store.images import CONFIG, IMAGE, LAYER, descriptor, index
from tests.store.interleaving import interleave

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


NO_WAY_OUT = """
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = %L', current_database(), '1min');
END $$
"""


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A database that lets those who wait for one another wait, past the time that our statements have."""
    with server().database() as url:
        server().run(NO_WAY_OUT, url)
        yield url


class World:
    """Two repositories of their own, a blob, and an image of it."""

    numbers = iter(range(10**6))

    def __init__(self, database: Database) -> None:
        self.database = database
        self.number = next(self.numbers)
        self.here, self.there, self.cached = (f"{name}/{self.number}" for name in ("here", "there", "cached"))
        self.data = f"layer {self.number}".encode()
        self.layer = Digest.of(self.data)
        self.body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": IMAGE,
                "config": descriptor(CONFIG, self.layer, len(self.data)),
                "layers": [descriptor(LAYER, self.layer, len(self.data))],
            }
        ).encode()
        self.image = Digest.of(self.body)
        self.index_body = index(self.image)
        self.index = Digest.of(self.index_body)
        self.uploads = 0

    async def begin(self) -> None:
        for name in (self.here, self.there):
            await Hosted(self.database).create(name, Settings(sparse="nothing"), BEGAN)

    # Steps: each is one of the two that meet.

    async def upload(self, database: Database, name: str = "", now: float = NOW) -> None:
        self.uploads += 1
        place = f"blobs/{self.number}.{self.uploads}"
        record = Pushing(database).record
        size = len(self.data)
        await record(name or self.here, "s", self.layer, size, place, self.uploads, now, now + GRACE)

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

    async def _put(self, database: Database, body: bytes, tags: tuple[str, ...], now: float) -> bool:
        pushed = Pushed(Digest.of(body), body, manifests.parse(body), tags)
        return isinstance(await Hosted(database).put(self.here, pushed, now), Put)

    async def ask(self, database: Database) -> bool:
        """For the image, by its digest."""
        await Hosted(database).stands(self.here, self.image, NOW + GRACE / 2, NOW + GRACE)
        return await self.has_image()

    async def remove_image(self, database: Database) -> bool:
        return await Hosted(database).remove(self.here, self.image, NOW, NOW + GRACE) is not None

    async def remove_index(self, database: Database, now: float = NOW) -> bool:
        return await Hosted(database).remove(self.here, self.index, now, now + GRACE) is not None

    async def unlink(self, database: Database) -> bool | None:
        return await Pushing(database).unlink(self.here, self.layer, NOW)

    async def delete_there(self, database: Database) -> bool:
        return await Hosted(database).delete(self.there, NOW, force=True)

    async def sweep(self, database: Database, now: float = NOW) -> int:
        """What of this world is due: blobs that went."""
        collection = Collection(self.database)
        due = [
            item
            for item in await collection.due(now, 10**6)
            if item.digest in {self.layer, self.image, self.index}
        ]
        return (await Collection(database).sweep(due, now, GRACE)).blobs

    async def evict(self, database: Database) -> int:
        """As the eviction had chosen before."""
        chosen = [blob for blob in await Records(self.database).evictable(10**6) if blob.digest == self.layer]
        return len(await Records(database).evict(chosen, NOW))

    async def purge(self, database: Database) -> None:
        await Removal(database).remove(self.cached, [], [], NOW, whole=True, earnest=True)

    # What is looked at.

    async def has_blob(self) -> bool:
        row = await Records(self.database).blob(self.here, self.layer)
        return row is not None and row.generation > 0

    async def has_image(self) -> bool:
        return await Records(self.database).image(self.here, self.image) is not None

    async def sound(self) -> None:
        assert await rows(self.database, PLACES) == [], "bytes of a blob are in the trash"
        assert await rows(self.database, INCOMPLETE) == [], "an image is not whole"


Prepare = Callable[[World], Awaitable[object]]
Check = Callable[[World, Any, Any], Awaitable[bool]]


@dataclass(frozen=True)
class Race:
    name: str
    prepare: Prepare
    one: str
    other: str
    holds: Check
    """Given what the two have said."""


async def uploaded(world: World) -> None:
    await world.upload(world.database, now=BEGAN)


async def uploaded_there(world: World) -> None:
    await world.upload(world.database, world.there, BEGAN)


async def pushed(world: World) -> None:
    await uploaded(world)
    assert await world.put(world.database, now=BEGAN)


async def with_index(world: World) -> None:
    await pushed(world)
    assert await world.put_index(world.database, BEGAN)


async def child_is_due(world: World) -> None:
    await with_index(world)
    assert await world.remove_index(world.database, BEGAN)


async def cached(world: World) -> None:
    records, size = Records(world.database), len(world.data)
    await records.record_link(world.cached, "hub", world.layer, size, BEGAN)
    await records.record_blob(world.layer, size, f"blobs/{world.number}.0", 9, BEGAN)


async def blob_if_told(world: World, told: Any, other: Any) -> bool:
    return not told or await world.has_blob()


async def blob_is_here(world: World, told: Any, other: Any) -> bool:
    return await world.has_blob()


async def image_if_told(world: World, told: Any, other: Any) -> bool:
    return not told or (await world.has_image() and await world.has_blob())


async def image_is_here_for_good(world: World, told: Any, other: Any) -> bool:
    for day in (1, 2, 3):
        await world.sweep(world.database, NOW + day * GRACE)
    return await world.has_image() and await world.has_blob()


async def image_for_a_while(world: World, told: Any, other: Any) -> bool:
    await world.sweep(world.database, NOW + GRACE / 2)
    return not told or await world.has_image()


async def once(world: World, one: Any, other: Any) -> bool:
    return one + other == 1 and not await world.has_blob()


async def child_unless_gone(world: World, told: Any, other: Any) -> bool:
    return await world.has_image() and await world.has_blob()


async def blobs_of_what_is_left(world: World, told: Any, other: Any) -> bool:
    return not await world.has_image() or await world.has_blob()


RACES = (
    Race("R1 R5 the same blob again", uploaded, "upload", "sweep", blob_is_here),
    Race("R2 a pusher hears that it is here", uploaded, "head", "sweep", blob_if_told),
    Race("R2 a pusher hears that a child is here", child_is_due, "ask", "sweep", image_for_a_while),
    Race("R3 a mount", uploaded_there, "mount", "sweep", blob_if_told),
    Race("R4 an image of it", uploaded, "put", "sweep", image_if_told),
    Race("R6 R7 a tag on an image that is due", child_is_due, "tag", "sweep", image_is_here_for_good),
    Race("R8 an index that names it", child_is_due, "put_index", "sweep", image_if_told),
    Race("R9 its index goes, and a tag comes", with_index, "tag", "remove_index", image_is_here_for_good),
    Race("R9 its index goes, and another comes", with_index, "put_index", "remove_index", child_unless_gone),
    Race("R11 the other repository goes", uploaded_there, "mount", "delete_there", blob_if_told),
    Race("R13 eviction", cached, "link", "evict", blob_if_told),
    Race("R13 a purge", cached, "link", "purge", blob_if_told),
    Race("R16 two collectors", uploaded, "sweep", "sweep", once),
    Race("the image goes, and is pushed again", pushed, "put", "remove_image", blobs_of_what_is_left),
    Race("the blob goes, and an image comes", uploaded, "put", "unlink", blobs_of_what_is_left),
    Race("the image goes, and its blob", pushed, "unlink", "remove_image", blobs_of_what_is_left),
)


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
@pytest.mark.parametrize("stops", ["one", "other"])
async def test_nothing_that_was_told_is_lost(
    database: Database, request: pytest.FixtureRequest, race: Race, stops: str
) -> None:
    together = request.node.callspec.params["opened"] == "postgres"
    met, at = True, 0
    while met:
        world = World(database)
        await world.begin()
        await race.prepare(world)
        one, other = getattr(world, race.one), getattr(world, race.other)
        first, second = (one, other) if stops == "one" else (other, one)
        if together:
            said, answered, met = await interleave(database, first, second, at)
        else:
            said, answered, met = await first(database), await second(database), False
        told, against = (said, answered) if stops == "one" else (answered, said)
        await world.sound()
        assert await race.holds(world, told, against), f"stopped before statement {at}"
        await world.sweep(database, NOW + 3 * GRACE)
        await world.sound()
        at += 1
    assert at > 1 or not together
