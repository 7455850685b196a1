"""What goes, and what stays, when the rows are swept; on both databases."""

from __future__ import annotations

import math

import pytest

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.collection import TRASHED, Backlog, Collection, Doomed, Stock, Swept
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.taking import Pushed, Put
from tests.store.hosting import rows
from tests.store.images import (
    CONFIG_BYTES,
    CONFIG_DIGEST,
    LAYER_BYTES,
    LAYER_DIGEST,
    REPOSITORY,
    image,
    index,
    record,
)

TEAM, OTHER = "team/app", "team/other"
GRACE = 500.0
PUSHED, KEPT = 100.0, 600.0
BYTES = len(LAYER_BYTES) + len(CONFIG_BYTES)


class Registry:
    """The hosted rows with a clock: each call is at `now`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.pushing, self.hosted = Pushing(database), Hosted(database)
        self.collection = Collection(database)
        self.now = PUSHED
        self.uploads = 0

    async def push(self, body: bytes, *tags: str, name: str = TEAM) -> Digest:
        """A manifest with its two blobs, if it has some."""
        if manifests.parse(body).blobs:
            await self.upload(CONFIG_DIGEST, CONFIG_BYTES, name)
            await self.upload(LAYER_DIGEST, LAYER_BYTES, name)
        return await self.put(body, *tags, name=name)

    async def put(self, body: bytes, *tags: str, name: str = TEAM) -> Digest:
        digest = Digest.of(body)
        pushed = Pushed(digest, body, manifests.parse(body), tags)
        assert isinstance(await self.hosted.put(name, pushed, self.now), Put)
        return digest

    async def upload(self, digest: Digest, data: bytes, name: str = TEAM) -> str:
        self.uploads += 1
        place = f"blobs/{digest.hex}.{self.uploads}"
        keep_until = self.now + GRACE
        await self.pushing.record(
            name, "0" * 32, digest, len(data), place, self.uploads, self.now, keep_until
        )
        return place

    async def remove(self, digest: Digest, name: str = TEAM) -> None:
        assert await self.hosted.remove(name, digest, self.now, self.now + GRACE) is not None

    async def collect(self, *, earnest: bool = True) -> Swept:
        """All that is due."""
        swept = Swept()
        items, last = await self.collection.due(self.now, 2), None
        while items:
            swept.add(await self.collection.sweep(items, self.now, GRACE, earnest=earnest))
            last = items[-1]
            items = await self.collection.due(self.now, 2, last)
        return swept

    async def blobs(self) -> set[str]:
        return {str(digest) for (digest,) in await rows(self.database, "SELECT digest FROM blob")}

    async def images(self) -> set[str]:
        return {str(digest) for (digest,) in await rows(self.database, "SELECT digest FROM image")}


@pytest.fixture
async def registry(database: Database) -> Registry:
    registry = Registry(database)
    for name in (TEAM, OTHER):
        assert await registry.hosted.create(name, Settings(), 1.0)
    return registry


# Blobs.


async def test_a_blob_that_no_image_came_for_goes_after_its_time(registry: Registry) -> None:
    place = await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    registry.now = KEPT - 1
    assert await registry.collect() == Swept()
    registry.now = KEPT
    assert await registry.collect() == Swept(looked=1, links=1, blobs=1, bytes=len(LAYER_BYTES))
    assert await registry.blobs() == set()
    trash = await rows(registry.database, "SELECT path, not_before FROM trash")
    assert trash == [(place, KEPT + TRASHED)]
    assert await rows(registry.database, "SELECT * FROM review") == []


async def test_a_blob_that_an_image_names_stays(registry: Registry) -> None:
    await registry.push(image())
    registry.now = KEPT
    assert await registry.collect() == Swept(looked=2)
    assert await registry.blobs() == {CONFIG_DIGEST, LAYER_DIGEST}
    assert await rows(registry.database, "SELECT count(*) FROM link") == [(2,)]
    assert await rows(registry.database, "SELECT * FROM review") == []


async def test_a_link_that_no_image_explains_goes_and_another_repository_s_stays(
    registry: Registry,
) -> None:
    await registry.push(image())
    await registry.upload(LAYER_DIGEST, LAYER_BYTES, OTHER)
    registry.now = KEPT
    assert await registry.collect() == Swept(looked=2, links=1)
    assert await registry.blobs() == {CONFIG_DIGEST, LAYER_DIGEST}


async def test_what_is_kept_longer_is_looked_at_later(registry: Registry) -> None:
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    await registry.database.write(lambda tx: tx.run("UPDATE link SET keep_until = :later", later=KEPT + 50.0))
    registry.now = KEPT
    assert await registry.collect() == Swept(looked=1)
    assert await rows(registry.database, "SELECT due FROM review") == [(KEPT + 50.0,)]
    registry.now = KEPT + 50.0
    assert (await registry.collect()).blobs == 1


async def test_a_lease_holds_a_blob(registry: Registry) -> None:
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    lease = "INSERT INTO lease (digest, holder, until) VALUES (:digest, 'scan', :until)"
    await registry.database.write(lambda tx: tx.run(lease, digest=LAYER_DIGEST, until=KEPT + 50.0))
    registry.now = KEPT
    assert (await registry.collect()).blobs == 0
    assert await registry.blobs() == {LAYER_DIGEST}
    registry.now = KEPT + 50.0
    assert (await registry.collect()).blobs == 1
    assert await rows(registry.database, "SELECT * FROM lease") == []


async def test_a_cached_repository_keeps_its_link_and_the_bytes(registry: Registry, records: Records) -> None:
    await record(records, image())
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    assert await records.cached_bytes() == 0
    registry.now = KEPT
    assert await registry.collect() == Swept(looked=1, links=1)
    row = await records.blob(REPOSITORY, LAYER_DIGEST)
    assert row is not None
    assert row.generation > 0
    assert await records.cached_bytes() == len(LAYER_BYTES)


async def test_a_blob_that_was_deleted_goes_at_once(registry: Registry) -> None:
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    registry.now = KEPT
    assert await registry.pushing.unlink(TEAM, LAYER_DIGEST, registry.now)
    assert (await registry.collect()).blobs == 1


async def test_what_is_pushed_again_is_another_file(registry: Registry) -> None:
    old = await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    registry.now = KEPT
    await registry.collect()
    new = await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    assert await rows(registry.database, "SELECT location FROM blob") == [(new,)]
    assert await rows(registry.database, "SELECT path FROM trash") == [(old,)]


# Images.


async def test_untagged_images_that_were_never_part_of_anything_stay(registry: Registry) -> None:
    pulled_by_digest, moved, untagged = image(note="0"), image(note="1"), image(note="2")
    await registry.push(pulled_by_digest)
    await registry.push(moved, "latest")
    await registry.push(untagged, "latest")
    await registry.hosted.untag(TEAM, "latest", registry.now)
    registry.now = 10 * KEPT
    await registry.collect()
    assert await registry.images() == {Digest.of(body) for body in (pulled_by_digest, moved, untagged)}


async def test_the_blobs_of_a_deleted_image_go(registry: Registry) -> None:
    digest = await registry.push(image())
    registry.now = 1000.0
    await registry.remove(digest)
    assert await registry.collect() == Swept()
    registry.now += GRACE
    assert await registry.collect() == Swept(looked=2, links=2, blobs=2, bytes=BYTES)


async def test_children_go_after_their_index_and_their_blobs_after_them(registry: Registry) -> None:
    child = await registry.push(image())
    parent = await registry.push(index(child), "1")
    registry.now = 1000.0
    await registry.remove(parent)
    assert await registry.images() == {child}
    registry.now += GRACE
    assert (await registry.collection.doomed(registry.now)).images == 1
    assert (await registry.collect()).images == 1
    assert await registry.blobs() == {CONFIG_DIGEST, LAYER_DIGEST}  # who asked for them was told of them
    registry.now += GRACE
    assert (await registry.collect()).blobs == 2
    assert await rows(registry.database, "SELECT * FROM manifest") == []


@pytest.mark.parametrize("reason", ["a tag", "another index", "a pin", "pushed again"])
async def test_a_child_with_another_reason_stays(registry: Registry, reason: str) -> None:
    body = image()
    child = await registry.push(body)
    parent = await registry.push(index(child))
    registry.now = 1000.0
    await registry.remove(parent)
    if reason == "a tag":
        await registry.put(body, "1")
    elif reason == "another index":
        await registry.put(index(child, Digest.of(b"another child")))
    elif reason == "a pin":
        await Records(registry.database).pin(TEAM, child)
    else:
        await registry.put(body)
    registry.now += 3 * GRACE
    assert (await registry.collect()).images == 0
    assert child in await registry.images()


async def test_whoever_hears_of_a_child_may_count_on_it(registry: Registry) -> None:
    child = await registry.push(image())
    parent = await registry.push(index(child))
    assert await registry.hosted.stands(TEAM, child, 1.0, 2.0) == math.inf
    registry.now = 1000.0
    await registry.remove(parent)
    due = registry.now + GRACE
    assert await registry.hosted.stands(TEAM, child, due, due + 9) == due
    assert await registry.hosted.stands(TEAM, child, due + 1, due + 9) == due + 9
    registry.now = due
    assert (await registry.collect()).images == 0
    registry.now = due + 9
    assert (await registry.collect()).images == 1
    assert await registry.hosted.stands(TEAM, child, due, due) == math.inf


async def test_referrers_go_after_their_subject(registry: Registry) -> None:
    subject = await registry.push(image(note="subject"))
    signature = await registry.push(image(note="signature", subject=subject))
    about_it = await registry.push(image(note="about the signature", subject=signature))
    registry.now = 1000.0
    await registry.remove(subject)
    for left in ({signature, about_it}, {about_it}, set()):
        assert await registry.images() == left
        registry.now += GRACE
        await registry.collect()


async def test_a_referrer_whose_subject_is_pushed_again_stays(registry: Registry) -> None:
    body = image(note="subject")
    subject = await registry.push(body)
    signature = await registry.push(image(note="signature", subject=subject))
    registry.now = 1000.0
    await registry.remove(subject)
    await registry.push(body)
    registry.now += GRACE
    assert (await registry.collect()).images == 0
    assert signature in await registry.images()


async def test_a_referrer_that_comes_before_its_subject_stays(registry: Registry) -> None:
    await registry.push(image(subject=Digest.of(b"to come")))
    registry.now = 10 * KEPT
    assert (await registry.collect()).images == 0


async def test_what_a_deleted_repository_had_goes(registry: Registry) -> None:
    await registry.push(image(), "1")
    registry.now = 1000.0
    assert await registry.hosted.delete(TEAM, registry.now, force=True)
    assert (await registry.collect()).bytes == BYTES


# In general.


async def test_not_in_earnest_nothing_changes(registry: Registry) -> None:
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    registry.now = KEPT
    before = await rows(registry.database, "SELECT * FROM review")
    swept = await registry.collect(earnest=False)
    assert swept.blobs == 1
    assert await registry.collection.doomed(KEPT) == Doomed(0, 1, len(LAYER_BYTES))
    assert await registry.blobs() == {LAYER_DIGEST}
    assert await rows(registry.database, "SELECT * FROM review") == before
    assert await registry.collect() == swept


async def test_what_was_given_more_time_since_it_was_found_is_left_alone(registry: Registry) -> None:
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    registry.now = KEPT
    items = await registry.collection.due(registry.now, 10)
    await registry.upload(LAYER_DIGEST, LAYER_BYTES)
    assert await registry.collection.sweep(items, registry.now, GRACE) == Swept()


async def test_how_much_is_due_and_how_much_there_is(registry: Registry, records: Records) -> None:
    await record(records, image())  # a cached one
    await registry.push(image(note="hosted"))
    assert await registry.collection.stock() == Stock(BYTES, 1)
    assert await registry.collection.backlog(KEPT - 1) == Backlog(0, 0.0)
    assert await registry.collection.backlog(KEPT) == Backlog(2, KEPT)


async def test_one_node_collects_at_a_time(registry: Registry) -> None:
    collection = registry.collection
    assert await collection.lease("one", 10.0, 20.0) is None
    assert await collection.lease("two", 19.0, 29.0) == "one"
    assert await collection.lease("one", 19.0, 29.0) is None
    assert await collection.lease("two", 29.0, 39.0) is None
    await collection.release("two")
    assert await collection.lease("one", 30.0, 40.0) is None
