from __future__ import annotations

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database
from cacheproxy.store.errors import Conflict
from cacheproxy.store.records import Records
from cacheproxy.store.removal import Graph, Removal, Removed
from cacheproxy.store.survey import Survey
from tests.store.images import (
    CHILD,
    CONFIG_DIGEST,
    LAYER_BYTES,
    LAYER_DIGEST,
    REPOSITORY,
    image,
    index,
    record,
)

OTHER = "docker-hub/library/other"
PLACE = "blobs/sha256/aa/x.1"


@pytest.fixture
def removal(database: Database) -> Removal:
    return Removal(database)


async def stored(records: Records) -> None:
    await records.record_blob(LAYER_DIGEST, len(LAYER_BYTES), PLACE, 1, 100.0)


async def take(removal: Removal, *images: Digest, earnest: bool = True, whole: bool = False) -> Removed:
    graph = await removal.graph(REPOSITORY)
    assert graph is not None
    tags = [(name, digest) for name, digest in graph.tags.items() if digest in images]
    return await removal.remove(REPOSITORY, tags, images, 500.0, whole=whole, earnest=earnest)


async def test_the_graph_is_what_names_what(records: Records, removal: Removal) -> None:
    subject = await record(records, image(), "1")
    signature = await record(records, image(subject=subject))
    above = await record(records, index(subject, CHILD), "all")
    await records.pin(REPOSITORY, "1")
    assert await removal.graph(REPOSITORY) == Graph(
        {"1": subject, "all": above},
        {subject: None, signature: subject, above: None},
        {above: frozenset({subject, CHILD})},
        frozenset({"1"}),
    )
    assert await removal.graph(OTHER) is None


async def test_bytes_that_nobody_else_names_become_trash(records: Records, removal: Removal) -> None:
    digest = await record(records, image(), "1")
    await stored(records)
    removed = await take(removal, digest)
    assert [(gone.digest, gone.size, gone.location) for gone in removed.gone] == [
        (LAYER_DIGEST, len(LAYER_BYTES), PLACE)
    ]
    assert await records.due_trash(500.0, 10) == [PLACE]
    assert await records.image(REPOSITORY, digest) is None
    assert await records.tag(REPOSITORY, "1") is None
    assert await records.any_blob(LAYER_DIGEST) is None
    assert await records.any_blob(CONFIG_DIGEST) is None


async def test_what_another_image_of_the_repository_names_stays(records: Records, removal: Removal) -> None:
    digest = await record(records, image())
    await record(records, image(note="another"))
    await stored(records)
    assert await take(removal, digest) == Removed((), len(LAYER_BYTES))
    assert await records.blob(REPOSITORY, LAYER_DIGEST) is not None


async def test_what_another_repository_has_stays(records: Records, removal: Removal) -> None:
    digest = await record(records, image())
    await record(records, image(), repository=OTHER)
    await stored(records)
    assert (await take(removal, digest, whole=True)).gone == ()
    assert await records.blob(REPOSITORY, LAYER_DIGEST) is None
    assert await records.image(OTHER, digest) is not None


async def test_not_in_earnest_nothing_changes(records: Records, removal: Removal) -> None:
    digest = await record(records, image(), "1")
    await stored(records)
    told = await take(removal, digest, earnest=False)
    assert await records.image(REPOSITORY, digest) is not None
    assert await records.due_trash(500.0, 10) == []
    assert told == await take(removal, digest)


async def test_a_tag_that_came_to_mean_the_image_is_a_conflict(records: Records, removal: Removal) -> None:
    digest = await record(records, image(), "1")
    with pytest.raises(Conflict):
        await removal.remove(REPOSITORY, [], [digest], 500.0, whole=False, earnest=True)
    assert await records.image(REPOSITORY, digest) is not None


async def test_the_whole_repository_goes_with_links_that_no_image_explains(
    records: Records, removal: Removal, database: Database
) -> None:
    await records.record_link(REPOSITORY, "docker-hub", LAYER_DIGEST, len(LAYER_BYTES), 100.0)
    await stored(records)
    assert len((await take(removal, whole=True)).gone) == 1
    assert await records.repository(REPOSITORY) is None
    assert (await Survey(database).use()).repositories == ()


async def test_blobs_without_bytes_are_told_since_they_may_be_coming(
    records: Records, removal: Removal
) -> None:
    digest = await record(records, image())
    await stored(records)
    assert (await take(removal, digest)).coming == (CONFIG_DIGEST,)


async def test_what_nobody_names_is_dropped_with_its_bytes_and_nothing_else(
    records: Records, removal: Removal
) -> None:
    unnamed, empty = Digest.of(b"unnamed"), Digest.of(b"not here")
    await record(records, image())
    await stored(records)
    await records.record_blob(unnamed, 9, "blobs/unnamed", 3, 1.0)
    gone = await removal.drop_unnamed([LAYER_DIGEST, CONFIG_DIGEST, unnamed, empty], 500.0)
    assert [(blob.digest, blob.size, blob.location) for blob in gone] == [(unnamed, 9, "blobs/unnamed")]
    assert await records.due_trash(500.0, 10) == ["blobs/unnamed"]
    assert await records.any_blob(unnamed) is None
    assert await records.blob(REPOSITORY, LAYER_DIGEST) is not None
