from __future__ import annotations

import pytest

from cacheproxy.store.database import Database
from cacheproxy.store.proofs import Proofs
from cacheproxy.store.records import Records
from cacheproxy.store.survey import HOSTED, BlobUse, Damaged, ImageUse, RepositoryUse, Survey, Use
from tests.store.hosting import host
from tests.store.images import CHILD, LAYER_BYTES, LAYER_DIGEST, REPOSITORY, image, record

OTHER = "docker-hub/library/other"


@pytest.fixture
def survey(database: Database) -> Survey:
    return Survey(database)


async def stored(records: Records, used: float = 100.0) -> None:
    await records.record_blob(LAYER_DIGEST, len(LAYER_BYTES), "blobs/sha256/aa/x.1", 1, used)


async def test_shared_bytes_count_for_each_repository_and_once_in_all(
    records: Records, survey: Survey
) -> None:
    for repository in (REPOSITORY, OTHER):
        await record(records, image(), repository=repository)
    await stored(records)
    size = len(LAYER_BYTES)
    assert await survey.use() == Use(
        (
            RepositoryUse("docker-hub", REPOSITORY, 1, 1, size),
            RepositoryUse("docker-hub", OTHER, 1, 1, size),
        ),
        {"docker-hub": size},
        1,
        size,
    )


async def test_hosted_repositories_are_named_so(database: Database, records: Records, survey: Survey) -> None:
    await record(records, image())
    await host(database, "team/app")
    use = await survey.use()
    assert {one.repository: one.upstream for one in use.repositories} == {
        REPOSITORY: "docker-hub",
        "team/app": HOSTED,
    }


async def test_an_empty_store_has_nothing(survey: Survey) -> None:
    assert await survey.use() == Use((), {}, 0, 0)


async def test_an_image_has_tags_and_a_beginning(records: Records, survey: Survey) -> None:
    digest = await record(records, image(), "b", now=7.0)
    await record(records, image(), "a", now=9.0)
    assert await survey.image(REPOSITORY, digest) == ImageUse(7.0, ("a", "b"))
    assert await survey.image(OTHER, digest) is None


async def test_a_blob_has_sharers(records: Records, survey: Survey) -> None:
    for repository in (REPOSITORY, OTHER):
        await record(records, image(), repository=repository)
    await stored(records, used=200.0)
    assert await survey.blob(REPOSITORY, LAYER_DIGEST) == BlobUse(
        len(LAYER_BYTES), True, 200.0, (OTHER,), None
    )
    assert await survey.blob(REPOSITORY, CHILD) is None


async def test_older_bytes_are_those_of_stored_blobs(records: Records, survey: Survey) -> None:
    await record(records, image())
    await stored(records, used=200.0)
    assert [await survey.older_bytes(moment) for moment in (200.0, 201.0)] == [0, len(LAYER_BYTES)]


async def test_damage_is_told_of_a_blob(records: Records, survey: Survey, database: Database) -> None:
    await stored(records)
    row = await records.any_blob(LAYER_DIGEST)
    assert row is not None
    await Proofs(database).quarantine(row, "mismatch", "is another", 300.0)
    use = await survey.blob(REPOSITORY, LAYER_DIGEST)
    assert use is not None
    assert (use.here, use.damaged) == (False, Damaged("mismatch", 300.0))
