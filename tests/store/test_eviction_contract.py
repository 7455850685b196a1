"""What is used, pinned and evicted, on every database (see conftest.DATABASES)."""

from __future__ import annotations

import json
import math

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.queries import PLACES
from cacheproxy.store.records import Records
from cacheproxy.store.rows import BlobRow, Evictable
from tests.store.hosting import host
from tests.store.images import (
    CONFIG_DIGEST,
    LAYER_BYTES,
    LAYER_DIGEST,
    REPOSITORY,
    descriptor,
    image,
    index,
    record,
)

A, B, C, D = (Digest.of(name) for name in (b"a", b"b", b"c", b"d"))


async def store(records: Records, digest: Digest, used: float, *repositories: str, size: int = 7) -> None:
    for repository in repositories:
        await records.record_link(repository, repository.partition("/")[0], digest, size, used)
    await records.record_blob(digest, size, f"blobs/{digest.hex}.5", 5, used)


async def in_order(records: Records, n: int = 100, **limits: float) -> list[Digest]:
    return [blob.digest for blob in await records.evictable(n, **limits)]  # type: ignore[arg-type]


async def only(records: Records, digest: Digest) -> Evictable:
    (found,) = [blob for blob in await records.evictable(100) if blob.digest == digest]
    return found


# The order in which blobs go.


async def test_nothing_can_go_where_nothing_is(records: Records) -> None:
    await record(records, image())
    assert await records.evictable(100) == []
    assert await records.oldest_used() is None


async def test_the_least_recently_used_goes_first(records: Records) -> None:
    for digest, used in ((A, 3.0), (B, 1.0), (C, 2.0)):
        await store(records, digest, used)
    assert await in_order(records) == [B, C, A]
    assert await records.oldest_used() == 1.0


async def test_a_read_moves_a_blob_behind_the_others(records: Records) -> None:
    for digest, used in ((A, 1.0), (B, 2.0), (C, 3.0)):
        await store(records, digest, used)
    await records.record_used([(B, 5.0), (A, 4.0)])
    assert await in_order(records) == [C, A, B]


async def test_a_read_that_was_long_ago_moves_nothing(records: Records) -> None:
    for digest, used in ((A, 1.0), (B, 2.0)):
        await store(records, digest, used)
    await records.record_used([(B, 0.5)])
    assert await in_order(records) == [A, B]


async def test_pages_go_on_where_the_last_one_ended(records: Records) -> None:
    for digest in (A, B, C, D):
        await store(records, digest, 1.0)
    whole = await records.evictable(100)
    first = await records.evictable(3)
    assert first == whole[:3]
    assert await records.evictable(3, after=first[-1]) == whole[3:]


async def test_what_was_used_since_is_not_among_what_was_used_before(records: Records) -> None:
    for digest, used in ((A, 1.0), (B, 2.0)):
        await store(records, digest, used)
    assert await in_order(records, before=2.0) == [A]


async def test_blob_tells_the_upstreams_that_it_came_from(records: Records) -> None:
    await store(records, A, 1.0, "hub/x", "hub/y", "quay/z")
    await store(records, B, 2.0)
    whole = await records.evictable(100)
    assert whole == [
        Evictable(A, 7, 5, f"blobs/{A.hex}.5", 1.0, frozenset({"hub", "quay"})),
        Evictable(B, 7, 5, f"blobs/{B.hex}.5", 2.0, frozenset()),
    ]


async def test_many_repositories_of_one_blob_are_one_line_of_a_page(records: Records) -> None:
    await store(records, A, 1.0, *(f"hub/{n}" for n in range(20)))
    await store(records, B, 2.0, "quay/z")
    assert await in_order(records, 2) == [A, B]


async def test_hosted_bytes_do_not_go(records: Records, database: Database) -> None:
    await store(records, A, 1.0, "hub/x", "team/y")
    await store(records, B, 2.0, "hub/x")
    await database.write(lambda tx: tx.run("UPDATE repository SET kind = 'hosted' WHERE name = 'team/y'"))
    assert await in_order(records) == [B]


# Eviction.


async def test_evicted_blob_leaves_its_rows_and_its_place_in_the_trash(records: Records) -> None:
    digest = await record(records, image(), "latest")
    await store(records, LAYER_DIGEST, 1.0)
    blob = await only(records, LAYER_DIGEST)
    assert await records.evict([blob], 10.0) == [blob]
    assert await records.blob(REPOSITORY, LAYER_DIGEST) == BlobRow(LAYER_DIGEST, len(LAYER_BYTES), 0, "")
    assert await records.image(REPOSITORY, digest) is not None
    assert await records.tag(REPOSITORY, "latest") is not None
    assert await records.cached_bytes() == 0
    assert await records.due_trash(10.0, 100) == [blob.location]


async def test_evicted_blob_can_be_stored_again(records: Records) -> None:
    await store(records, A, 1.0)
    await records.evict(await records.evictable(1), 10.0)
    assert await records.record_blob(A, 7, "blobs/again", 6, 2.0) is None
    assert await records.any_blob(A) == BlobRow(A, 7, 6, "blobs/again")


async def test_blob_goes_once(records: Records) -> None:
    await store(records, A, 1.0)
    blobs = await records.evictable(1)
    await records.evict(blobs, 10.0)
    assert await records.evict(blobs, 10.0) == []


async def test_only_the_generation_that_was_chosen_goes(records: Records) -> None:
    await store(records, A, 1.0)
    blobs = await records.evictable(1)
    await records.forget_bytes(A, 5)
    await records.record_blob(A, 7, "blobs/again", 6, 1.0)
    assert await records.evict(blobs, 10.0) == []
    assert await records.any_blob(A) == BlobRow(A, 7, 6, "blobs/again")
    assert await records.due_trash(10.0, 100) == []


async def test_blob_that_was_read_since_it_was_chosen_stays(records: Records) -> None:
    await store(records, A, 1.0)
    await store(records, B, 1.0)
    blobs = await records.evictable(2)
    await records.record_used([(A, 2.0)])
    assert [blob.digest for blob in await records.evict(blobs, 10.0)] == [B]


async def test_blob_that_was_pinned_since_it_was_chosen_stays(records: Records) -> None:
    await record(records, image(), "latest")
    await store(records, LAYER_DIGEST, 1.0)
    blobs = await records.evictable(1)
    await records.pin(REPOSITORY, "latest")
    assert await records.evict(blobs, 10.0) == []


async def test_blob_that_was_pushed_since_it_was_chosen_stays(records: Records, database: Database) -> None:
    """Also where the clock was set back, and the push is no later use."""
    await store(records, A, 1000.0, "hub/x")
    blobs = await records.evictable(1)
    await host(database, "team/y")
    assert await Pushing(database).link("team/y", A, 10.0, 20.0) == 7
    assert await records.evict(blobs, 10.0) == []


# Trash.


async def test_trash_is_due_at_its_time_and_the_oldest_first(records: Records) -> None:
    for digest, time in ((A, 3.0), (B, 1.0), (C, 2.0)):
        await store(records, digest, 0.0)
        await records.evict([await only(records, digest)], time)
    places = {digest: f"blobs/{digest.hex}.5" for digest in (A, B, C)}
    assert await records.due_trash(0.5, 100) == []
    assert await records.due_trash(2.0, 100) == [places[B], places[C]]
    assert await records.due_trash(9.0, 1) == [places[B]]


async def test_trash_that_is_unlinked_is_forgotten(records: Records) -> None:
    for digest in (A, B):
        await store(records, digest, 0.0)
    await records.evict(await records.evictable(2), 1.0)
    first, second = await records.due_trash(1.0, 100)
    await records.forget_trash([first, "blobs/unknown"])
    assert await records.due_trash(1.0, 100) == [second]


# Pins.


async def test_pins_are_listed_by_repository_and_name(records: Records) -> None:
    digest = await record(records, image(), "latest")
    await record(records, image(), "latest", repository="a/b")
    for repository, name in ((REPOSITORY, "latest"), (REPOSITORY, digest), ("a/b", "latest")):
        assert await records.pin(repository, name)
        assert await records.pin(repository, name), "again is fine"
    assert await records.pins() == sorted([("a/b", "latest"), (REPOSITORY, "latest"), (REPOSITORY, digest)])


async def test_nothing_is_pinned_in_a_repository_that_is_not_there(records: Records) -> None:
    assert not await records.pin("hub/none", "latest")
    assert await records.pins() == []


async def test_unpinning_tells_whether_there_was_a_pin(records: Records) -> None:
    await record(records, image(), "latest")
    await records.pin(REPOSITORY, "latest")
    assert not await records.unpin("hub/none", "latest")
    assert not await records.unpin(REPOSITORY, "other")
    assert await records.unpin(REPOSITORY, "latest")
    assert not await records.unpin(REPOSITORY, "latest")


@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_pin_holds_all_blobs_of_its_image(records: Records, by: str) -> None:
    digest = await record(records, image(), "latest")
    for blob in (LAYER_DIGEST, CONFIG_DIGEST, A):
        await store(records, blob, 1.0)
    await records.pin(REPOSITORY, "latest" if by == "tag" else digest)
    assert await records.pinned() == {LAYER_DIGEST, CONFIG_DIGEST}
    assert await in_order(records) == [A]


async def test_pinned_tag_holds_what_it_means_now(records: Records) -> None:
    body = json.loads(image())
    body["layers"] = [descriptor(body["layers"][0]["mediaType"], A, 7)]
    await record(records, image(), "latest")
    await records.pin(REPOSITORY, "latest")
    await record(records, json.dumps(body).encode(), "latest")
    assert await records.pinned() == {CONFIG_DIGEST, A}


async def test_pin_of_an_index_holds_its_children(records: Records) -> None:
    child = await record(records, image())
    nested = await record(records, index(child))
    await record(records, index(nested, Digest.of(b"not here")), "multi")
    await store(records, LAYER_DIGEST, 1.0)
    await records.pin(REPOSITORY, "multi")
    assert await records.pinned() == {LAYER_DIGEST, CONFIG_DIGEST}


async def test_pin_of_what_is_not_here_holds_nothing(records: Records) -> None:
    await record(records, image(), "latest")
    await records.pin(REPOSITORY, "never-pulled")
    assert await records.pinned() == frozenset()


async def test_pin_is_of_one_repository(records: Records) -> None:
    """And still holds the bytes, for whoever shares them."""
    await record(records, image(), "latest")
    await record(records, image(note="2"), "latest", repository="quay/other")
    await store(records, LAYER_DIGEST, 1.0)
    await records.pin("quay/other", "latest")
    assert await in_order(records, before=math.inf) == []
    await records.unpin("quay/other", "latest")
    assert await in_order(records) == [LAYER_DIGEST]


async def test_places_are_accounted_for_by_their_blob_or_by_the_trash(records: Records) -> None:
    """Not by another generation of the blob, and whatever else is asked in the same breath."""
    await store(records, A, 1.0)
    await store(records, B, 2.0)
    await records.evict(await records.evictable(1), 9.0)
    trashed, there = (f"blobs/{digest.hex}.5" for digest in (A, B))
    files = [(A, trashed), (B, there), (B, "blobs/another"), (C, "blobs/none")]
    assert await records.accounted(files) == {trashed, there}
    assert await records.accounted([]) == frozenset()
    assert await records.accounted([(B, there)] * PLACES) == {there}
