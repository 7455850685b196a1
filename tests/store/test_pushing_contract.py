"""What a push leaves in the rows, on both databases."""

from __future__ import annotations

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.database import Database
from cacheproxy.store.pushing import NoRepository, OverQuota, Pushing, TooManyChunks, UploadRow
from cacheproxy.store.records import Records
from cacheproxy.store.sessions import Chunk, Sent
from tests.store.hosting import host, rows
from tests.store.images import LAYER_BYTES, LAYER_DIGEST, REPOSITORY, image, record

TEAM, OTHER = "team/app", "team/other"
SESSION, SECOND = "a" * 32, "b" * 32
PLACE = "blobs/sha256/aa/x.1"
REVIEWS = "SELECT repository, digest, due FROM review ORDER BY digest"
LINKS = """
SELECT repository.name, link.size, link.keep_until
FROM link JOIN repository ON repository.id = link.repository
WHERE link.digest = :digest ORDER BY repository.name
"""


@pytest.fixture
async def pushing(database: Database) -> Pushing:
    await host(database, TEAM, OTHER)
    return Pushing(database)


async def begun(pushing: Pushing, session: str = SESSION, most: int = 9, now: float = 10.0) -> bool:
    return await pushing.begin(TEAM, session, "user:alice", "sha256", now, most)


async def recorded(pushing: Pushing, location: str = PLACE, generation: int = 1) -> str | None:
    return await pushing.record(
        TEAM, SESSION, LAYER_DIGEST, len(LAYER_BYTES), location, generation, 20.0, 500.0
    )


async def test_an_upload_is_found_until_it_ends(pushing: Pushing) -> None:
    assert await begun(pushing)
    assert await pushing.find(SESSION) == UploadRow(TEAM, "user:alice", "sha256", 10.0)
    assert await pushing.end(SESSION, 20.0)
    assert await pushing.find(SESSION) is None
    assert not await pushing.end(SESSION, 20.0)


async def test_uploads_are_counted_by_principal(pushing: Pushing) -> None:
    assert await begun(pushing, most=1)
    assert not await begun(pushing, SECOND, most=1)
    assert await pushing.begin(TEAM, SECOND, "user:bob", "sha256", 10.0, 1)


async def test_uploads_begin_in_hosted_repositories_only(pushing: Pushing, records: Records) -> None:
    await record(records, image(), "1")
    for name in ("team/none", REPOSITORY):
        with pytest.raises(NoRepository):
            await pushing.begin(name, SESSION, "user:alice", "sha256", 10.0, 9)


async def test_an_upload_that_nobody_works_on_is_stale(pushing: Pushing) -> None:
    await begun(pushing)
    await begun(pushing, SECOND)
    await pushing.touch(SECOND, 30.0)
    assert await pushing.stale(20.0, 9) == [SESSION]
    assert await pushing.stale(40.0, 1) == [SESSION]


async def test_an_upload_becomes_a_blob_of_its_repository(
    pushing: Pushing, records: Records, database: Database
) -> None:
    await begun(pushing)
    assert await recorded(pushing) is None
    blob = await records.blob(TEAM, LAYER_DIGEST)
    assert blob is not None
    assert (blob.size, blob.generation, blob.location) == (len(LAYER_BYTES), 1, PLACE)
    assert await records.blob(OTHER, LAYER_DIGEST) is None
    assert await pushing.find(SESSION) is None
    assert await rows(database, REVIEWS) == [(0, LAYER_DIGEST, 500.0)]


async def test_of_two_uploads_of_one_blob_the_first_ones_bytes_stay(
    pushing: Pushing, records: Records
) -> None:
    await begun(pushing)
    await recorded(pushing)
    assert await recorded(pushing, "blobs/sha256/aa/x.2", 2) == "blobs/sha256/aa/x.2"
    blob = await records.blob(TEAM, LAYER_DIGEST)
    assert blob is not None
    assert blob.location == PLACE


async def test_a_blob_that_a_cached_image_only_names_gets_the_pushed_bytes(
    pushing: Pushing, records: Records
) -> None:
    await record(records, image(), "1")
    await begun(pushing)
    assert await recorded(pushing) is None
    blob = await records.blob(REPOSITORY, LAYER_DIGEST)
    assert blob is not None
    assert blob.location == PLACE


async def test_a_repository_gets_what_is_here(pushing: Pushing, database: Database) -> None:
    await begun(pushing)
    await recorded(pushing)
    assert await pushing.link(OTHER, LAYER_DIGEST, 30.0, 600.0) == len(LAYER_BYTES)
    assert await rows(database, LINKS, digest=LAYER_DIGEST) == [
        (TEAM, len(LAYER_BYTES), 500.0),
        (OTHER, len(LAYER_BYTES), 600.0),
    ]
    assert await rows(database, REVIEWS) == [(0, LAYER_DIGEST, 600.0)]


async def test_bytes_that_are_not_here_cannot_be_linked(pushing: Pushing, records: Records) -> None:
    await record(records, image(), "1")
    assert await pushing.link(TEAM, LAYER_DIGEST, 30.0, 600.0) is None
    assert await pushing.link(TEAM, Digest.of(b"never seen"), 30.0, 600.0) is None


async def test_a_mount_takes_from_a_repository_that_has_the_blob(pushing: Pushing) -> None:
    await begun(pushing)
    await recorded(pushing)
    assert await pushing.link(OTHER, LAYER_DIGEST, 30.0, 600.0, source=TEAM) == len(LAYER_BYTES)
    assert await pushing.link(OTHER, LAYER_DIGEST, 30.0, 600.0, source="team/none") is None


async def test_a_link_is_never_kept_shorter(pushing: Pushing, database: Database) -> None:
    await begun(pushing)
    await recorded(pushing)
    await pushing.link(TEAM, LAYER_DIGEST, 30.0, 400.0)
    assert await rows(database, LINKS, digest=LAYER_DIGEST) == [(TEAM, len(LAYER_BYTES), 500.0)]


async def test_whoever_has_the_bytes_of_a_blob(pushing: Pushing, records: Records) -> None:
    await record(records, image(), "1")
    assert await pushing.holders(LAYER_DIGEST, 9) == []
    await begun(pushing)
    await recorded(pushing)
    assert await pushing.holders(LAYER_DIGEST, 9) == [REPOSITORY, TEAM]
    assert await pushing.holders(LAYER_DIGEST, 1) == [REPOSITORY]


async def test_whoever_hears_of_a_blob_can_count_on_it(pushing: Pushing, database: Database) -> None:
    await begun(pushing)
    await recorded(pushing)
    assert await pushing.stands(TEAM, LAYER_DIGEST, 30.0, 450.0, 700.0) == len(LAYER_BYTES)
    assert await rows(database, LINKS, digest=LAYER_DIGEST) == [(TEAM, len(LAYER_BYTES), 500.0)]
    assert await pushing.stands(TEAM, LAYER_DIGEST, 30.0, 550.0, 700.0) == len(LAYER_BYTES)
    assert await rows(database, LINKS, digest=LAYER_DIGEST) == [(TEAM, len(LAYER_BYTES), 700.0)]
    assert await rows(database, REVIEWS) == [(0, LAYER_DIGEST, 700.0)]


async def test_a_blob_of_another_repository_is_not_heard_of(pushing: Pushing) -> None:
    await begun(pushing)
    await recorded(pushing)
    assert await pushing.stands(OTHER, LAYER_DIGEST, 30.0, 450.0, 700.0) is None


async def test_a_link_goes_and_its_blob_is_looked_at(
    pushing: Pushing, records: Records, database: Database
) -> None:
    await begun(pushing)
    await recorded(pushing)
    assert await pushing.unlink(TEAM, LAYER_DIGEST, 600.0)
    assert await records.blob(TEAM, LAYER_DIGEST) is None
    assert await rows(database, REVIEWS) == [(0, LAYER_DIGEST, 600.0)]
    assert await pushing.unlink(TEAM, LAYER_DIGEST, 600.0) is False


async def test_a_link_that_an_image_explains_stays(pushing: Pushing, records: Records) -> None:
    await begun(pushing)
    await recorded(pushing)
    await record(records, image(), "1", repository=TEAM)
    assert await pushing.unlink(TEAM, LAYER_DIGEST, 600.0) is None
    assert await records.blob(TEAM, LAYER_DIGEST) is not None


async def test_a_blob_that_an_image_explains_needs_no_more_time(
    pushing: Pushing, records: Records, database: Database
) -> None:
    await begun(pushing)
    await recorded(pushing)
    await record(records, image(), "1", repository=TEAM)
    assert await pushing.stands(TEAM, LAYER_DIGEST, 30.0, 550.0, 700.0) == len(LAYER_BYTES)
    assert await rows(database, REVIEWS) == [(0, LAYER_DIGEST, 500.0)]


FIRST, NEXT = Chunk("uploads/first", 0, 5), Chunk("uploads/next", 5, 3)


async def test_chunks_are_counted_one_behind_the_other(pushing: Pushing) -> None:
    await begun(pushing)
    assert [await pushing.add(SESSION, chunk, 11.0, 9) for chunk in (FIRST, NEXT)] == [5, 8]
    assert await pushing.find(SESSION) == UploadRow(TEAM, "user:alice", "sha256", 11.0, Sent(8, NEXT.key))
    assert await pushing.chunks(SESSION) == [FIRST, NEXT]


async def test_a_chunk_that_is_counted_already_is_not_again(pushing: Pushing) -> None:
    await begun(pushing)
    for _ in range(2):
        assert await pushing.add(SESSION, FIRST, 11.0, 9) == 5
    assert await pushing.chunks(SESSION) == [FIRST]


async def test_a_chunk_that_came_second_is_not_counted(pushing: Pushing) -> None:
    await begun(pushing)
    await pushing.add(SESSION, FIRST, 11.0, 9)
    assert await pushing.add(SESSION, Chunk("uploads/other", 0, 7), 11.0, 9) == 5
    assert await pushing.chunks(SESSION) == [FIRST]


async def test_a_session_that_has_ended_counts_nothing(pushing: Pushing) -> None:
    assert await pushing.add(SESSION, FIRST, 11.0, 9) is None


async def test_a_session_has_only_so_many_chunks(pushing: Pushing) -> None:
    await begun(pushing)
    await pushing.add(SESSION, FIRST, 11.0, 1)
    with pytest.raises(TooManyChunks):
        await pushing.add(SESSION, NEXT, 11.0, 1)


async def test_chunks_leave_with_their_session(pushing: Pushing, database: Database) -> None:
    for end in (pushing.end(SESSION, 20.0), recorded(pushing)):
        await begun(pushing)
        await pushing.add(SESSION, FIRST, 11.0, 9)
        await end
        assert await rows(database, "SELECT path, not_before FROM trash") == [(FIRST.key, 20.0)]
        assert await rows(database, "SELECT * FROM chunk") == []
        assert await pushing.accounted([(SESSION, FIRST.key), (SESSION, NEXT.key)]) == {FIRST.key}
        await database.write(lambda tx: tx.run("DELETE FROM trash"))


async def test_a_session_that_was_touched_does_not_end_for_its_age(pushing: Pushing) -> None:
    await begun(pushing)
    assert not await pushing.end(SESSION, 20.0, 10.0)
    assert await pushing.end(SESSION, 20.0, 10.5)


QUOTA = "UPDATE repository SET settings = :settings WHERE name = :name"


async def quota(database: Database, name: str, size: int) -> None:
    settings = Settings(quota_bytes=size).text()
    await database.write(lambda tx: tx.run(QUOTA, name=name, settings=settings))


async def test_what_fits_into_the_quota_is_known(pushing: Pushing, database: Database) -> None:
    await begun(pushing)
    await recorded(pushing)
    await quota(database, TEAM, len(LAYER_BYTES) + 3)
    await begun(pushing, SECOND)
    row = await pushing.find(SECOND)
    assert row is not None
    assert row.room == 3


async def test_a_blob_beyond_the_quota_is_not_taken(pushing: Pushing, database: Database) -> None:
    await quota(database, TEAM, len(LAYER_BYTES) - 1)
    await begun(pushing)
    with pytest.raises(OverQuota):
        await recorded(pushing)
    assert await rows(database, "SELECT * FROM blob") == []
    await quota(database, TEAM, len(LAYER_BYTES))
    await recorded(pushing)
    await quota(database, OTHER, len(LAYER_BYTES) - 1)
    with pytest.raises(OverQuota):
        await pushing.link(OTHER, LAYER_DIGEST, 30.0, 600.0, source=TEAM)


async def test_what_a_full_repository_has_it_may_be_given_again(pushing: Pushing, database: Database) -> None:
    await begun(pushing)
    await recorded(pushing)
    await quota(database, TEAM, 1)
    assert await pushing.link(TEAM, LAYER_DIGEST, 30.0, 600.0) == len(LAYER_BYTES)
    with pytest.raises(OverQuota):
        await begun(pushing, SECOND)
