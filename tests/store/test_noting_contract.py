"""What changes of rows note for those who are to be told, on both databases."""

from __future__ import annotations

import pytest

from cacheproxy.core import events as asking
from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.events import By, Event, Kind, decode
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.settings import Settings
from cacheproxy.store.collection import Collection
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.outbox import Outbox, OutboxRows, Sink
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.removal import Removal
from cacheproxy.store.taking import Pushed, Put, Refused
from tests.store.images import (
    CONFIG,
    CONFIG_BYTES,
    CONFIG_DIGEST,
    IMAGE,
    LAYER_BYTES,
    LAYER_DIGEST,
    REPOSITORY,
    image,
    index,
    record,
)

TEAM, OTHER = "team/app", "team/other"
NOW = 100.0
ALICE = By("user:alice", "f00d")


class World:
    def __init__(self, database: Database) -> None:
        outbox = Outbox([Sink("all", frozenset(Kind), Patterns("**"))])
        self.outbox = outbox
        self.pushing, self.hosted = Pushing(database, outbox), Hosted(database, outbox)
        self.collection, self.removal = Collection(database, outbox), Removal(database, outbox)
        self.records, self.rows = Records(database, outbox), OutboxRows(database)

    async def heard(self) -> list[Event]:
        """Since the last time."""
        waiting = await self.rows.waiting("all", NOW, 1000)
        await self.rows.told(waiting, None, None, NOW)
        return [decode(row.event) for row in waiting]

    async def blobs(self, name: str = TEAM) -> None:
        for generation, (digest, data) in enumerate(
            ((CONFIG_DIGEST, CONFIG_BYTES), (LAYER_DIGEST, LAYER_BYTES))
        ):
            place = f"blobs/{digest.hex}.{generation + 1}"
            await self.pushing.record(name, "0" * 32, digest, len(data), place, generation + 1, NOW, 500.0)

    async def push(self, body: bytes, *tags: str) -> Digest:
        pushed = Pushed(Digest.of(body), body, manifests.parse(body), tags)
        assert isinstance(await self.hosted.put(TEAM, pushed, NOW), Put)
        return pushed.digest


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    assert await world.hosted.create(TEAM, Settings(), NOW)
    await world.blobs()
    await world.heard()
    return world


async def test_a_repository_that_is_made_and_renamed(world: World) -> None:
    assert await world.hosted.create(OTHER, Settings(), NOW)
    assert not await world.hosted.create(OTHER, Settings(), NOW)
    assert not await world.hosted.rename(OTHER, TEAM, NOW)
    assert await world.hosted.rename(OTHER, "team/new", NOW)
    assert await world.heard() == [
        Event(Kind.REPOSITORY_CREATED, OTHER, NOW),
        Event(Kind.REPOSITORY_RENAMED, "team/new", NOW, before=OTHER),
    ]


async def test_a_push_is_an_event_for_each_tag_that_moved_with_who_pushed(world: World) -> None:
    token = asking.by.set(ALICE)
    digest = await world.push(image(), "2", "1")
    asking.by.reset(token)
    size = len(image())
    assert await world.heard() == [
        Event(Kind.IMAGE_PUSHED, TEAM, NOW, digest, IMAGE, CONFIG, size, tag, by=ALICE) for tag in "12"
    ]


async def test_a_tag_that_moves_says_what_it_meant(world: World) -> None:
    before = await world.push(image(), "1")
    await world.heard()
    await world.push(image(note="two"), "1")
    (event,) = await world.heard()
    assert (event.tag, event.before) == ("1", before)


async def test_a_push_by_digest_is_one_event_and_what_changes_nothing_is_none(world: World) -> None:
    digest = await world.push(image())
    (event,) = await world.heard()
    assert (event.digest, event.tag) == (digest, "")
    await world.push(image())
    assert await world.heard() == []
    await world.push(image(), "1")
    assert len(await world.heard()) == 1
    await world.push(image(), "1")
    assert await world.heard() == []


async def test_a_push_that_is_refused_is_not_told(world: World) -> None:
    await world.hosted.create(OTHER, Settings(), NOW)
    await world.heard()
    pushed = Pushed(Digest.of(image()), image(), manifests.parse(image()), ("1",))
    assert isinstance(await world.hosted.put(OTHER, pushed, NOW), Refused)
    assert await world.heard() == []


async def test_an_image_that_is_deleted_comes_after_its_tags(world: World) -> None:
    digest = await world.push(image(), "1", "2")
    await world.heard()
    assert await world.hosted.remove(TEAM, digest, NOW, 500.0) == ("1", "2")
    told = await world.heard()
    assert [(event.kind, event.tag) for event in told] == [
        (Kind.TAG_DELETED, "1"),
        (Kind.TAG_DELETED, "2"),
        (Kind.IMAGE_DELETED, ""),
    ]
    assert {(event.digest, event.media_type, event.size) for event in told} == {(digest, IMAGE, len(image()))}
    assert await world.hosted.remove(TEAM, digest, NOW, 500.0) is None
    assert await world.heard() == []


async def test_a_tag_that_is_deleted(world: World) -> None:
    digest = await world.push(image(), "1")
    await world.heard()
    assert await world.hosted.untag(TEAM, "1", NOW) == digest
    assert await world.hosted.untag(TEAM, "1", NOW) is None
    (event,) = await world.heard()
    assert (event.kind, event.tag, event.digest) == (Kind.TAG_DELETED, "1", digest)


async def test_a_repository_that_is_deleted_is_one_event(world: World) -> None:
    await world.push(image(), "1")
    await world.heard()
    assert not await world.hosted.delete(TEAM, NOW, force=False)
    assert await world.hosted.delete(TEAM, NOW, force=True)
    assert await world.heard() == [Event(Kind.REPOSITORY_DELETED, TEAM, NOW)]


async def test_what_the_collection_lets_go_is_told_by_nobodys_name(world: World) -> None:
    child = await world.push(image())
    above = await world.push(index(child))
    await world.hosted.remove(TEAM, above, NOW, 200.0)
    await world.heard()
    await world.collection.sweep(await world.collection.due(300.0, 10), 300.0, 50.0, earnest=False)
    assert await world.heard() == []
    await world.collection.sweep(await world.collection.due(300.0, 10), 300.0, 50.0)
    (event,) = await world.heard()
    assert (event.kind, event.repository, event.digest, event.by) == (Kind.IMAGE_DELETED, TEAM, child, None)


async def test_blobs_that_come_and_go(world: World) -> None:
    await world.hosted.create(OTHER, Settings(), NOW)
    await world.heard()
    await world.blobs()  # it has them
    assert await world.pushing.link(OTHER, LAYER_DIGEST, NOW, 500.0, source=TEAM) == len(LAYER_BYTES)
    assert await world.pushing.link(OTHER, LAYER_DIGEST, NOW, 500.0, source=TEAM) == len(LAYER_BYTES)
    assert await world.pushing.link(OTHER, CONFIG_DIGEST, NOW, 500.0) == len(CONFIG_BYTES)
    assert await world.pushing.unlink(OTHER, LAYER_DIGEST, NOW)
    assert await world.heard() == [
        Event(Kind.BLOB_MOUNTED, OTHER, NOW, LAYER_DIGEST, size=len(LAYER_BYTES), source=TEAM),
        Event(Kind.BLOB_PUSHED, OTHER, NOW, CONFIG_DIGEST, size=len(CONFIG_BYTES)),
        Event(Kind.BLOB_DELETED, OTHER, NOW, LAYER_DIGEST),
    ]


async def test_an_upstreams_image_that_is_here_now_and_a_tag_that_means_it(world: World) -> None:
    first = await record(world.records, image(), "1")
    await record(world.records, image(), "1")
    second = await record(world.records, image(note="two"), "1")
    await record(world.records, image(note="two"))
    told = await world.heard()
    assert {(event.kind, event.repository, event.upstream) for event in told} == {
        (Kind.IMAGE_CACHED, REPOSITORY, REPOSITORY.partition("/")[0])
    }
    assert [(event.digest, event.tag, event.before) for event in told] == [
        (first, "1", ""),
        (second, "1", first),
    ]


@pytest.mark.parametrize("earnest", [True, False])
async def test_what_is_purged_in_earnest_is_told(world: World, earnest: bool) -> None:
    digest = await record(world.records, image(), "1")
    await world.heard()
    await world.removal.remove(REPOSITORY, [("1", digest)], [digest], NOW, whole=False, earnest=earnest)
    told = [(event.kind, event.tag) for event in await world.heard()]
    assert told == ([(Kind.TAG_DELETED, "1"), (Kind.IMAGE_DELETED, "")] if earnest else [])


async def test_a_tag_that_moved_away_is_not_told_to_be_purged(world: World) -> None:
    first = await record(world.records, image(), "1")
    await record(world.records, image(note="two"), "1")
    await world.heard()
    await world.removal.remove(REPOSITORY, [("1", first)], [first], NOW, whole=False, earnest=True)
    assert [(event.kind, event.digest) for event in await world.heard()] == [(Kind.IMAGE_DELETED, first)]


async def test_a_repository_that_is_purged_is_one_event(world: World) -> None:
    digest = await record(world.records, image(), "1")
    await world.heard()
    await world.removal.remove(REPOSITORY, [("1", digest)], [digest], NOW, whole=True, earnest=True)
    assert await world.heard() == [Event(Kind.REPOSITORY_DELETED, REPOSITORY, NOW)]


async def test_who_is_to_hear_of_nothing_makes_no_rows(world: World) -> None:
    world.outbox.sinks = ()
    digest = await world.push(image(), "1")
    await world.hosted.remove(TEAM, digest, NOW, 500.0)
    await record(world.records, image(), "1")
    assert await world.rows.backlog() == []
