"""What the collection meets, in each order, stopped before each statement: nothing that was told is lost.

On PostgreSQL two transactions really meet. SQLite runs one after the other: there only the order counts. That
they end without a deadlock is a part of it (R18): none is resolved here.

The races, by the numbers that the design gave them, and where those are that are not below:

    R5   while the old file is unlinked      tests/registry/test_collected_bytes.py
    R12  a reader, and the unlink            tests/registry/test_collected_bytes.py
    R14  an upload's last PUT, and its end   tests/registry/test_push_races.py
    R15  a crash between row and unlink      the same; at any moment: tests/crash
    R16  replication and scans that read     not here yet, and then by leases (`store/leases.py`), which hold
    R17  a clock that was set                tests/registry/test_collection.py
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from tests.postgres import server
from tests.store.interleaving import interleave
from tests.store.racing import BEGAN, GRACE, NOW, World

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


async def begun(world: World) -> None:
    await Pushing(world.database).begin(world.here, world.session, "user:a", "sha256", BEGAN, 10)


async def referrer_is_due(world: World) -> None:
    await pushed(world)
    assert await world.put_referrer(world.database, BEGAN)
    assert await Hosted(world.database).remove(world.here, world.image, BEGAN, BEGAN + GRACE) is not None


async def two_of_the_same(world: World) -> None:
    for name in (world.here, world.there):
        for data in (world.data, world.more):
            await world.upload(world.database, name, BEGAN, data)


async def two_images_of_the_same(world: World) -> None:
    await two_of_the_same(world)
    assert await world.put_pair(world.database, BEGAN)
    assert await world.put_riap(world.database, BEGAN)


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


async def referrer_for_a_while(world: World, told: Any, other: Any) -> bool:
    await world.sweep(world.database, NOW + GRACE / 2)
    return not told or (await world.has_image(world.referrer) and await world.has_blob())


async def referrer_with_its_subject(world: World, told: Any, other: Any) -> bool:
    """It went before, or stays as long as its subject does."""
    there = await world.has_image(world.referrer)
    for day in (1, 2, 3):
        await world.sweep(world.database, NOW + day * GRACE)
    return not told or (await world.has_image() and await world.has_image(world.referrer) == there)


async def all_blobs(world: World, told: Any, other: Any) -> bool:
    """Images that went had them, or images that came have."""
    places = [(name, digest) for name in (world.here, world.there) for digest in (world.layer, world.second)]
    return bool(told) and bool(other) and all([await world.has_blob(*place) for place in places])


async def blob_in_its_repository(world: World, told: Any, other: Any) -> bool:
    """Neither outlives a repository that was deleted."""
    return bool(other) and not await world.has_blob()


async def gone(world: World, one: Any, other: Any) -> bool:
    return not await world.has_blob()


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
    Race("R10 a referrer, whose subject is due", child_is_due, "put_referrer", "sweep", referrer_for_a_while),
    Race("R10 a referrer, whose subject goes", pushed, "put_referrer", "remove_image", referrer_for_a_while),
    Race("R10 the subject comes again", referrer_is_due, "put", "sweep", referrer_with_its_subject),
    Race("R11 the other repository goes", uploaded_there, "mount", "delete_there", blob_if_told),
    Race("R11 an upload ends, its repository goes", begun, "finish", "delete_here", blob_in_its_repository),
    Race("R13 eviction", cached, "link", "evict", blob_if_told),
    Race("R13 a purge", cached, "link", "purge", blob_if_told),
    Race("R16 two collectors", uploaded, "sweep", "sweep", once),
    Race("R16 a scrub", uploaded, "scrub", "sweep", gone),
    Race("R18 images of the same come", two_of_the_same, "put_pair", "put_riap", all_blobs),
    Race("R18 images of the same go", two_images_of_the_same, "remove_pair", "remove_riap", all_blobs),
    Race("R18 one goes, and a sweep", two_images_of_the_same, "remove_pair", "sweep", blob_is_here),
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
