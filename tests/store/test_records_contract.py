"""What the rows do on every database (see conftest.DATABASES)."""

from __future__ import annotations

import json

import pytest
import trio

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.database import Database
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.records import Records
from cacheproxy.store.rows import BlobRow, ImageRow, ReferrerRow, Repository, TagRow
from tests.store.images import (
    CHILD,
    CONFIG,
    CONFIG_BYTES,
    CONFIG_DIGEST,
    IMAGE,
    INDEX,
    LAYER_BYTES,
    LAYER_DIGEST,
    REPOSITORY,
    image,
    index,
    record,
)

# Images and tags.


async def test_nothing_is_there_at_first(records: Records) -> None:
    assert await records.repository(REPOSITORY) is None
    assert await records.tag(REPOSITORY, "latest") is None
    assert await records.image(REPOSITORY, CHILD) is None
    assert await records.blob(REPOSITORY, LAYER_DIGEST) is None
    assert await records.any_blob(LAYER_DIGEST) is None
    assert await records.tags(REPOSITORY) == []
    assert await records.referrers(REPOSITORY, CHILD) == []
    assert await records.repositories("", 10) == []
    assert (await records.cached_bytes(), await records.images()) == (0, 0)


async def test_recorded_image_is_read_back_verbatim(records: Records) -> None:
    body = image(note="umlaut \u00e4, tail ") + b"\n \n"
    digest = await record(records, body)
    assert await records.image(REPOSITORY, digest) == ImageRow(digest, IMAGE, CONFIG, len(body), None, body)


async def test_artifact_type_and_subject_are_kept(records: Records) -> None:
    digest = await record(records, image(subject=CHILD, artifact="application/vnd.example.sbom"))
    row = await records.image(REPOSITORY, digest)
    assert row is not None
    assert (row.artifact_type, row.subject) == ("application/vnd.example.sbom", CHILD)


async def test_what_is_set_for_a_repository_is_said_when_the_first_of_it_comes(records: Records) -> None:
    assert await records.settings(REPOSITORY) == Settings()
    body, fixed = image(), Settings(immutable=True, description="mirrored")
    digest, parsed = Digest.of(body), manifests.parse(body)
    await records.record_image(REPOSITORY, "hub", digest, body, parsed, 1.0, settings=fixed)
    assert await records.settings(REPOSITORY) == fixed
    await records.record_image(REPOSITORY, "hub", digest, body, parsed, 2.0, "latest", settings=Settings())
    assert await records.settings(REPOSITORY) == fixed
    await records.record_link("hub/other", "hub", LAYER_DIGEST, 5, 1.0, settings=fixed)
    assert await records.settings("hub/other") == fixed


async def test_repository_is_made_with_its_first_image(records: Records) -> None:
    await record(records, image(), now=5.0)
    await record(records, image(note="2"), now=6.0)
    row = await records.repository(REPOSITORY)
    assert row is not None
    assert row == Repository(row.id, REPOSITORY, "cached", "docker-hub", 5.0)


async def test_image_is_of_its_repository_only(records: Records) -> None:
    digest = await record(records, image(), "latest")
    other = "docker-hub/library/debian"
    await record(records, image(note="other"), repository=other)
    assert await records.image(other, digest) is None
    assert await records.tag(other, "latest") is None


async def test_tag_means_the_image_recorded_with_it(records: Records) -> None:
    digest = await record(records, image(), "latest", now=7.0)
    assert await records.tag(REPOSITORY, "latest") == TagRow(digest, 7.0, 7.0, None)


async def test_image_without_a_tag_moves_none(records: Records) -> None:
    first = await record(records, image(), "latest")
    await record(records, image(note="2"))
    row = await records.tag(REPOSITORY, "latest")
    assert row is not None
    assert row.digest == first


async def test_tag_moves_with_a_new_image(records: Records) -> None:
    await record(records, image(), "latest", now=7.0)
    second = await record(records, image(note="2"), "latest", now=9.0)
    assert await records.tag(REPOSITORY, "latest") == TagRow(second, 9.0, 9.0, None)


async def test_recording_the_same_image_again_checks_the_tag_and_moves_nothing(records: Records) -> None:
    digest = await record(records, image(), "latest", now=7.0)
    assert await record(records, image(), "latest", now=9.0) == digest
    assert await records.tag(REPOSITORY, "latest") == TagRow(digest, 9.0, 7.0, None)
    assert await records.images() == 1


async def test_check_keeps_what_the_tag_means(records: Records) -> None:
    digest = await record(records, image(), "latest", now=7.0)
    await records.record_checked(REPOSITORY, "latest", 8.0, None)
    assert await records.tag(REPOSITORY, "latest") == TagRow(digest, 8.0, 7.0, None)


async def test_check_may_find_what_is_to_be_fetched(records: Records) -> None:
    digest = await record(records, image(), "latest", now=7.0)
    await records.record_checked(REPOSITORY, "latest", 8.0, CHILD)
    assert await records.tag(REPOSITORY, "latest") == TagRow(digest, 8.0, 7.0, CHILD)


async def test_what_was_to_be_fetched_is_settled_by_a_new_image_or_a_check(records: Records) -> None:
    digest = await record(records, image(), "latest", now=7.0)
    await records.record_checked(REPOSITORY, "latest", 8.0, CHILD)
    await records.record_checked(REPOSITORY, "latest", 9.0, None)
    assert await records.tag(REPOSITORY, "latest") == TagRow(digest, 9.0, 7.0, None)
    await records.record_checked(REPOSITORY, "latest", 10.0, CHILD)
    await record(records, image(), "latest", now=11.0)
    assert await records.tag(REPOSITORY, "latest") == TagRow(digest, 11.0, 7.0, None)


async def test_check_of_a_tag_that_is_not_there_makes_none(records: Records) -> None:
    await record(records, image())
    await records.record_checked(REPOSITORY, "latest", 8.0, None)
    await records.record_checked("docker-hub/none", "latest", 8.0, None)
    assert await records.tag(REPOSITORY, "latest") is None
    assert await records.repository("docker-hub/none") is None


async def test_check_is_of_one_tag_of_one_repository(records: Records) -> None:
    other = "docker-hub/library/debian"
    for repository, tag in ((REPOSITORY, "a"), (REPOSITORY, "b"), (other, "a")):
        await record(records, image(), tag, repository=repository, now=1.0)
    await records.record_checked(REPOSITORY, "a", 2.0, None)
    rows = [await records.tag(*pair) for pair in ((REPOSITORY, "a"), (REPOSITORY, "b"), (other, "a"))]
    assert [row.checked for row in rows if row is not None] == [2.0, 1.0, 1.0]


async def test_index_keeps_its_children_even_those_that_are_not_here(
    records: Records, database: Database
) -> None:
    child = await record(records, image())
    digest = await record(records, index(child, CHILD, CHILD), "multi")
    row = await records.image(REPOSITORY, digest)
    assert row is not None
    assert row.media_type == INDEX
    children = await database.scan(
        lambda tx: tx.all("SELECT digest FROM child WHERE image = :image", image=digest)
    )
    assert {text for (text,) in children} == {child, CHILD}


# Blobs.


async def test_image_names_its_blobs_before_their_bytes_are_here(records: Records) -> None:
    await record(records, image())
    assert await records.blob(REPOSITORY, LAYER_DIGEST) == BlobRow(LAYER_DIGEST, len(LAYER_BYTES), 0, "")
    assert await records.blob(REPOSITORY, CONFIG_DIGEST) == BlobRow(CONFIG_DIGEST, len(CONFIG_BYTES), 0, "")


async def test_image_may_name_a_blob_twice(records: Records) -> None:
    body = json.loads(image())
    body["layers"] *= 3
    await record(records, json.dumps(body).encode())
    assert await records.blob(REPOSITORY, LAYER_DIGEST) is not None


async def test_blob_is_reached_through_a_link_only(records: Records) -> None:
    await record(records, image())
    await record(records, index(CHILD), repository="docker-hub/other")
    assert await records.blob("docker-hub/other", LAYER_DIGEST) is None
    assert await records.any_blob(LAYER_DIGEST) is not None


async def test_link_makes_what_is_missing(records: Records) -> None:
    await records.record_link("quay/some", "quay", LAYER_DIGEST, 7, 3.0)
    row = await records.repository("quay/some")
    assert row is not None
    assert (row.kind, row.upstream, row.created) == ("cached", "quay", 3.0)
    assert await records.blob("quay/some", LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 0, "")


async def test_link_finds_bytes_that_another_repository_brought(records: Records) -> None:
    await record(records, image())
    await records.record_blob(LAYER_DIGEST, 7, "blobs/there", 5, 4.0)
    await records.record_link("quay/some", "quay", LAYER_DIGEST, 7, 3.0)
    assert await records.blob("quay/some", LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 5, "blobs/there")


async def test_stored_bytes_are_seen_by_every_repository_that_has_the_link(records: Records) -> None:
    await record(records, image())
    await record(records, image(), repository="docker-hub/other")
    assert await records.record_blob(LAYER_DIGEST, 7, "blobs/there", 5, 4.0) is None
    for repository in (REPOSITORY, "docker-hub/other"):
        assert await records.blob(repository, LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 5, "blobs/there")


async def test_blob_that_nobody_named_can_be_stored(records: Records) -> None:
    assert await records.record_blob(LAYER_DIGEST, 7, "blobs/there", 5, 4.0) is None
    assert await records.any_blob(LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 5, "blobs/there")


async def test_second_copy_loses_and_its_place_is_given_back(records: Records) -> None:
    await records.record_blob(LAYER_DIGEST, 7, "blobs/first", 5, 4.0)
    assert await records.record_blob(LAYER_DIGEST, 7, "blobs/second", 6, 4.0) == "blobs/second"
    assert await records.any_blob(LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 5, "blobs/first")


async def test_recording_the_same_bytes_again_gives_nothing_to_unlink(records: Records) -> None:
    await records.record_blob(LAYER_DIGEST, 7, "blobs/first", 5, 4.0)
    assert await records.record_blob(LAYER_DIGEST, 7, "blobs/first", 5, 4.0) is None


async def test_forgotten_bytes_leave_the_row_and_may_come_again(records: Records) -> None:
    await record(records, image())
    await records.record_blob(LAYER_DIGEST, 7, "blobs/first", 5, 4.0)
    assert await records.forget_bytes(LAYER_DIGEST, 5)
    assert await records.blob(REPOSITORY, LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 0, "")
    assert await records.record_blob(LAYER_DIGEST, 7, "blobs/second", 6, 5.0) is None
    assert await records.blob(REPOSITORY, LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 6, "blobs/second")


async def test_only_the_generation_that_was_missed_is_forgotten(records: Records) -> None:
    await records.record_blob(LAYER_DIGEST, 7, "blobs/second", 6, 4.0)
    assert not await records.forget_bytes(LAYER_DIGEST, 5)
    assert not await records.forget_bytes(CONFIG_DIGEST, 5)
    assert await records.any_blob(LAYER_DIGEST) == BlobRow(LAYER_DIGEST, 7, 6, "blobs/second")
    assert await records.forget_bytes(LAYER_DIGEST, 6)
    assert not await records.forget_bytes(LAYER_DIGEST, 6)
    assert not await records.forget_bytes(LAYER_DIGEST, 0)


async def test_size_that_one_repository_claims_does_not_spoil_anothers(records: Records) -> None:
    await record(records, image(size=1), repository="docker-hub/liar")
    await record(records, image(size=7))
    for repository, size in (("docker-hub/liar", 1), (REPOSITORY, 7)):
        row = await records.blob(repository, LAYER_DIGEST)
        assert row is not None
        assert row.size == size


async def test_proven_size_beats_what_was_claimed(records: Records) -> None:
    await record(records, image(size=1), repository="docker-hub/liar")
    await records.record_blob(LAYER_DIGEST, 7, "blobs/there", 5, 4.0)
    row = await records.blob("docker-hub/liar", LAYER_DIGEST)
    assert row is not None
    assert row.size == 7


async def test_upstreams_word_corrects_what_the_manifest_claimed(records: Records) -> None:
    await record(records, image(size=1))
    await records.record_link(REPOSITORY, "docker-hub", LAYER_DIGEST, 7, 4.0)
    row = await records.blob(REPOSITORY, LAYER_DIGEST)
    assert row is not None
    assert row.size == 7


async def test_cached_bytes_are_those_that_are_here(records: Records) -> None:
    await record(records, image())
    await records.record_blob(LAYER_DIGEST, 1 << 40, "blobs/layer", 5, 4.0)
    await records.record_blob(CONFIG_DIGEST, 2, "blobs/config", 6, 4.0)
    assert await records.cached_bytes() == (1 << 40) + 2
    await records.forget_bytes(LAYER_DIGEST, 5)
    assert await records.cached_bytes() == 2


# Lists.


async def test_tags_come_in_the_order_of_their_bytes(records: Records) -> None:
    for tag in ("b", "a", "B", "a-1", "a_1", "a.1", "10", "9"):
        await record(records, image(), tag)
    await record(records, image(), "elsewhere", repository="docker-hub/other")
    assert await records.tags(REPOSITORY) == sorted(("b", "a", "B", "a-1", "a_1", "a.1", "10", "9"))


async def test_repositories_come_in_pages_in_the_order_of_their_bytes(records: Records) -> None:
    names = ["a/b", "a-b/c", "a_b/c", "a.b/c", "a/b/c", "b/a"]
    for name in names:
        await records.record_link(name, "a", LAYER_DIGEST, 7, 3.0)
    ordered = sorted(names)
    assert await records.repositories("", 100) == ordered
    assert await records.repositories("", 2) == ordered[:2]
    assert await records.repositories(ordered[1], 2) == ordered[2:4]
    assert await records.repositories(ordered[-1], 2) == []


async def test_referrers_are_those_of_the_subject_in_the_repository(records: Records) -> None:
    subject = await record(records, image())
    sbom = image(subject=subject, artifact="application/vnd.example.sbom")
    signature = image(subject=subject, artifact="application/vnd.example.signature")
    second = await record(records, signature, now=101.0)
    first = await record(records, sbom, now=100.0)
    await record(records, image(subject=CHILD))
    await record(records, image(subject=subject, note="elsewhere"), repository="docker-hub/other")
    assert await records.referrers(REPOSITORY, subject) == [
        ReferrerRow(first, IMAGE, "application/vnd.example.sbom", len(sbom)),
        ReferrerRow(second, IMAGE, "application/vnd.example.signature", len(signature)),
    ]


async def test_referrer_may_come_before_its_subject(records: Records) -> None:
    referrer = await record(records, image(subject=CHILD))
    assert [row.digest for row in await records.referrers(REPOSITORY, CHILD)] == [referrer]


async def test_images_are_counted_by_repository(records: Records) -> None:
    await record(records, image())
    await record(records, image(), repository="docker-hub/other")
    await record(records, image(note="2"))
    assert await records.images() == 3


# One transaction each.


async def test_image_is_recorded_whole_or_not_at_all(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr("cacheproxy.store.records._record_named", fails)
        with pytest.raises(LookupError):
            await record(records, image(), "latest")
    assert await records.repository(REPOSITORY) is None
    assert await records.images() == 0
    await record(records, image(), "latest")
    assert await records.tag(REPOSITORY, "latest") is not None


async def test_racing_records_of_one_image_end_in_one(records: Records) -> None:
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(record, records, image(), f"tag{n % 3}")
    assert await records.images() == 1
    assert await records.tags(REPOSITORY) == ["tag0", "tag1", "tag2"]


async def test_row_that_was_tampered_with_is_suspect(records: Records, database: Database) -> None:
    await record(records, image(), "latest")
    await database.write(lambda tx: tx.run("UPDATE tag SET pending = '../../etc/passwd'"))
    with pytest.raises(StoreSuspect, match="passwd"):
        await records.tag(REPOSITORY, "latest")
