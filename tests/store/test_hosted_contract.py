"""Hosted repositories in the rows, on both databases."""

from __future__ import annotations

import pytest

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.settings import Settings
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted, Kept
from cacheproxy.store.pushing import NoRepository, Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sessions import Chunk
from cacheproxy.store.taking import Pushed, Put, Refused
from tests.store.hosting import rows
from tests.store.images import (
    CHILD,
    CONFIG_BYTES,
    CONFIG_DIGEST,
    IMAGE,
    INDEX,
    LAYER_BYTES,
    LAYER_DIGEST,
    image,
    index,
    record,
)

TEAM = "team/app"
REVIEWS = "SELECT repository, digest, due FROM review WHERE due > 500 ORDER BY repository, digest"


@pytest.fixture
async def hosted(database: Database) -> Hosted:
    hosted = Hosted(database)
    assert await hosted.create(TEAM, Settings(), 1.0)
    await blobs(database, TEAM)
    return hosted


async def blobs(database: Database, repository: str) -> None:
    """The repository has the layer and the configuration of `image`."""
    pushing = Pushing(database)
    for digest, data, generation in ((CONFIG_DIGEST, CONFIG_BYTES, 1), (LAYER_DIGEST, LAYER_BYTES, 2)):
        place = f"blobs/sha256/{digest.hex[:2]}/{digest.hex}.{generation}"
        await pushing.record(repository, "0" * 32, digest, len(data), place, generation, 10.0, 500.0)


def pushed(body: bytes, *tags: str) -> Pushed:
    return Pushed(Digest.of(body), body, manifests.parse(body), tags)


async def put(hosted: Hosted, body: bytes, *tags: str, name: str = TEAM) -> Put | Refused:
    return await hosted.put(name, pushed(body, *tags), 100.0)


async def test_an_image_is_taken_with_its_tags(hosted: Hosted, records: Records) -> None:
    body = image()
    assert await put(hosted, body, "1", "latest") == Put(True, {"1": None, "latest": None})
    row = await records.image(TEAM, Digest.of(body))
    assert row is not None
    assert (row.body, row.media_type) == (body, IMAGE)
    for tag in ("1", "latest"):
        meant = await records.tag(TEAM, tag)
        assert meant is not None
        assert meant.digest == Digest.of(body)


async def test_the_same_image_again_is_no_change(hosted: Hosted) -> None:
    await put(hosted, image(), "1")
    assert await put(hosted, image(), "1") == Put(False, {})


async def test_a_tag_moves_and_what_it_meant_stays(hosted: Hosted, database: Database) -> None:
    old, new = image(note="old"), image(note="new")
    await put(hosted, old, "1")
    assert await put(hosted, new, "1") == Put(True, {"1": Digest.of(old)})
    assert await rows(database, REVIEWS) == []


async def test_a_tag_that_is_fixed_does_not_move(hosted: Hosted, records: Records) -> None:
    await hosted.configure(TEAM, Settings(immutable=True, except_tags=("dev",)))
    old, new = image(note="old"), image(note="new")
    await put(hosted, old, "1", "dev")
    assert await put(hosted, new, "1", "dev") == Refused(fixed=("1",))
    assert await records.image(TEAM, Digest.of(new)) is None
    assert isinstance(await put(hosted, old, "1"), Put)
    assert isinstance(await put(hosted, new, "dev"), Put)


async def test_an_image_without_its_blobs_is_refused(hosted: Hosted, records: Records) -> None:
    await hosted.create("team/empty", Settings(), 1.0)
    refused = await put(hosted, image(), "1", name="team/empty")
    assert refused == Refused(missing=tuple(sorted([CONFIG_DIGEST, LAYER_DIGEST])))
    assert await records.tag("team/empty", "1") is None


async def test_bytes_that_are_only_named_do_not_count(hosted: Hosted, database: Database) -> None:
    await database.write(
        lambda tx: tx.run(
            "UPDATE blob SET generation = 0, location = '' WHERE digest = :digest", digest=LAYER_DIGEST
        )
    )
    assert await put(hosted, image()) == Refused(missing=(LAYER_DIGEST,))


async def test_a_layer_that_is_to_be_had_elsewhere_need_not_be_here(hosted: Hosted) -> None:
    body = image().replace(b'"size": 7', b'"size": 7, "urls": ["https://elsewhere.example/layer"]')
    body = body.replace(LAYER_DIGEST.encode(), Digest.of(b"foreign").encode())
    assert isinstance(await put(hosted, body), Put)


async def test_an_index_may_be_sparse_unless_it_must_not(hosted: Hosted) -> None:
    assert isinstance(await put(hosted, index(CHILD)), Put)
    await hosted.configure(TEAM, Settings(sparse="nothing"))
    here = image()
    await put(hosted, here)
    assert await put(hosted, index(Digest.of(here), CHILD)) == Refused(missing=(CHILD,))
    assert isinstance(await put(hosted, index(Digest.of(here))), Put)


async def test_an_image_may_be_sparse_where_that_is_set(hosted: Hosted, records: Records) -> None:
    await hosted.create("team/empty", Settings(sparse="images"), 1.0)
    assert isinstance(await put(hosted, image(), name="team/empty"), Put)
    assert await records.blob("team/empty", LAYER_DIGEST) is None


async def test_a_sparse_image_that_is_pushed_again_names_what_came_since(
    hosted: Hosted, database: Database
) -> None:
    await hosted.create("team/empty", Settings(sparse="images"), 1.0)
    await put(hosted, image(), name="team/empty")
    await blobs(database, "team/empty")
    await put(hosted, image(), name="team/empty")
    assert await rows(database, "SELECT count(*) FROM reference") == [(2,)]


@pytest.mark.parametrize("kind", ["nondistributable.v1.tar+gzip", "rootfs.foreign.diff.tar.gzip"])
async def test_a_layer_that_must_not_be_distributed_need_not_be_here(hosted: Hosted, kind: str) -> None:
    body = image().replace(b"layer.v1.tar+gzip", f"layer.{kind}".encode())
    body = body.replace(LAYER_DIGEST.encode(), Digest.of(b"foreign").encode())
    assert isinstance(await put(hosted, body), Put)


async def test_the_same_bytes_are_of_one_type(hosted: Hosted) -> None:
    body = b'{"schemaVersion": 2, "manifests": []}'
    await hosted.put(TEAM, Pushed(Digest.of(body), body, manifests.parse(body, INDEX)), 100.0)
    docker = "application/vnd.docker.distribution.manifest.list.v2+json"
    other = Pushed(Digest.of(body), body, manifests.parse(body, docker))
    assert await hosted.put(TEAM, other, 100.0) == Refused(retyped=INDEX)


@pytest.mark.parametrize(
    ("settings", "over"),
    [
        (Settings(quota_bytes=len(LAYER_BYTES) + len(CONFIG_BYTES) - 1), "bytes"),
        (Settings(quota_bytes=len(LAYER_BYTES) + len(CONFIG_BYTES)), ""),
        (Settings(quota_images=1), "images"),
        (Settings(quota_images=2), ""),
    ],
)
async def test_a_quota_is_a_limit(hosted: Hosted, settings: Settings, over: str) -> None:
    await put(hosted, image(note="one"))
    await hosted.configure(TEAM, settings)
    answer = await put(hosted, image(note="two"))
    assert (answer.over if isinstance(answer, Refused) else "") == over
    assert await put(hosted, image(note="one"), "again") == Put(False, {"again": None})


async def test_a_tag_is_taken_away_and_its_image_stays(
    hosted: Hosted, records: Records, database: Database
) -> None:
    body = image()
    await put(hosted, body, "1", "2")
    assert await hosted.untag(TEAM, "1", 500.0) == Digest.of(body)
    assert await hosted.untag(TEAM, "1", 500.0) is None
    assert await records.tag(TEAM, "1") is None
    assert await records.image(TEAM, Digest.of(body)) is not None
    assert await rows(database, REVIEWS) == []


async def test_an_image_goes_with_its_tags(hosted: Hosted, records: Records, database: Database) -> None:
    body = image()
    await put(hosted, body, "1", "2")
    assert await hosted.remove(TEAM, Digest.of(body), 500.0, 700.0) == ("1", "2")
    assert await hosted.remove(TEAM, Digest.of(body), 500.0, 700.0) is None
    assert await records.image(TEAM, Digest.of(body)) is None
    assert await records.tag(TEAM, "1") is None
    assert await rows(database, "SELECT count(*) FROM manifest") == [(0,)]
    looked_at = {
        digest for number, digest, due in await rows(database, REVIEWS) if number == 0 and due == 700.0
    }
    assert looked_at == {CONFIG_DIGEST, LAYER_DIGEST}
    kept = await rows(database, "SELECT DISTINCT keep_until FROM link")
    assert kept == [(700.0,)]


async def test_children_and_referrers_of_what_goes_are_looked_at(hosted: Hosted, database: Database) -> None:
    child = image(note="child")
    above = index(Digest.of(child))
    signature = image(subject=Digest.of(above))
    for body in (child, above, signature):
        await put(hosted, body)
    await hosted.remove(TEAM, Digest.of(above), 500.0, 700.0)
    found = {digest for number, digest, _ in await rows(database, REVIEWS) if number != 0}
    assert found == {Digest.of(child), Digest.of(signature)}


async def test_a_body_that_another_repository_has_stays(
    hosted: Hosted, records: Records, database: Database
) -> None:
    body = image()
    await put(hosted, body)
    await hosted.create("team/other", Settings(), 1.0)
    await blobs(database, "team/other")
    await put(hosted, body, name="team/other")
    await hosted.remove(TEAM, Digest.of(body), 500.0, 700.0)
    assert await records.image("team/other", Digest.of(body)) is not None


async def test_tags_are_listed_by_the_page(hosted: Hosted) -> None:
    await put(hosted, image(), *(f"v{number:03}" for number in range(10)))
    assert await hosted.tags(TEAM, "", 4) == ["v000", "v001", "v002", "v003"]
    assert await hosted.tags(TEAM, "v003", 4) == ["v004", "v005", "v006", "v007"]
    assert await hosted.tags(TEAM, "v0075", 4) == ["v008", "v009"]
    assert await hosted.tags("team/none", "", 4) == []


async def test_repositories_are_listed_by_the_page(hosted: Hosted, records: Records) -> None:
    await record(records, image(), "1")
    await hosted.create("a/b", Settings(), 1.0)
    assert await hosted.names("", 2) == ["a/b", "docker-hub/library/alpine"]
    assert await hosted.names("docker-hub/library/alpine", 2) == [TEAM]


async def test_referrers_are_listed_by_the_page_and_by_type(hosted: Hosted) -> None:
    subject = Digest.of(image())
    bodies = [image(subject=subject, note=str(n), artifact=f"application/x{n % 2}") for n in range(4)]
    for body in bodies:
        await put(hosted, body)
    everything = sorted(map(Digest.of, bodies))
    listed = await hosted.referrers(TEAM, subject, None, "", 3)
    assert [referrer.digest for referrer in listed] == everything[:3]
    listed = await hosted.referrers(TEAM, subject, None, everything[2], 3)
    assert [referrer.digest for referrer in listed] == everything[3:]
    odd = await hosted.referrers(TEAM, subject, "application/x1", "", 9)
    assert {referrer.body for referrer in odd} == {bodies[1], bodies[3]}


async def test_a_repository_is_created_once(hosted: Hosted) -> None:
    settings = Settings(immutable=True, description="ours")
    assert await hosted.create("team/new", settings, 5.0)
    assert await hosted.settings("team/new") == settings
    assert not await hosted.create("team/new", Settings(), 6.0)
    assert await hosted.settings("team/new") == settings


async def test_a_cached_repositorys_name_is_taken(hosted: Hosted, records: Records) -> None:
    await record(records, image(), "1")
    assert not await hosted.create("docker-hub/library/alpine", Settings(), 5.0)
    assert await hosted.settings("docker-hub/library/alpine") is None


async def test_a_repository_is_renamed_with_all_it_has(hosted: Hosted, records: Records) -> None:
    body = image()
    await put(hosted, body, "1")
    assert await hosted.rename(TEAM, "team/renamed", 500.0)
    assert await records.image("team/renamed", Digest.of(body)) is not None
    assert await records.image(TEAM, Digest.of(body)) is None
    await hosted.create(TEAM, Settings(), 1.0)
    assert not await hosted.rename(TEAM, "team/renamed", 500.0)


async def test_a_repository_with_images_goes_only_by_force(hosted: Hosted, database: Database) -> None:
    await put(hosted, image(), "1")
    assert not await hosted.delete(TEAM, 900.0, force=False)
    assert await hosted.delete(TEAM, 900.0, force=True)
    assert await hosted.settings(TEAM) is None
    for table in ("image", "manifest", "tag", "link", "reference", "repository"):
        assert await rows(database, f"SELECT count(*) FROM {table}") == [(0,)]
    assert {row[1] for row in await rows(database, REVIEWS)} == {CONFIG_DIGEST, LAYER_DIGEST}


async def test_usage_counts_each_blob_once(hosted: Hosted) -> None:
    await put(hosted, image(note="one"))
    await put(hosted, image(note="two"))
    assert await hosted.usage(TEAM) == (len(LAYER_BYTES) + len(CONFIG_BYTES), 2)


async def test_what_is_not_there_is_said(hosted: Hosted) -> None:
    for attempt in (
        put(hosted, image(), name="team/none"),
        hosted.untag("team/none", "1", 1.0),
        hosted.remove("team/none", CHILD, 1.0, 1.0),
        hosted.delete("team/none", 1.0, force=True),
        hosted.rename("team/none", "x", 1.0),
        hosted.configure("team/none", Settings()),
        hosted.usage("team/none"),
    ):
        with pytest.raises(NoRepository):
            await attempt


async def test_repositories_are_told_with_what_is_in_them(database: Database) -> None:
    hosted = Hosted(database)
    for name in ("b", "a-b", "a/b"):
        await hosted.create(name, Settings(description=name), 1.0)
    assert await hosted.all() == [
        Kept(name, Settings(description=name), 0, 0) for name in ("a-b", "a/b", "b")
    ]


WAITED_FOR = "SELECT digest FROM absent"


async def test_a_sparse_image_names_its_blobs_as_they_come(hosted: Hosted, database: Database) -> None:
    await hosted.create("team/empty", Settings(sparse="images"), 1.0)
    assert isinstance(await put(hosted, image(), "1", name="team/empty"), Put)
    assert sorted(await rows(database, WAITED_FOR)) == sorted([(CONFIG_DIGEST,), (LAYER_DIGEST,)])
    await blobs(database, "team/empty")
    assert await rows(database, WAITED_FOR) == []
    assert len(await rows(database, "SELECT * FROM reference")) == 2
    pushing = Pushing(database)
    assert await pushing.unlink("team/empty", LAYER_DIGEST, 20.0) is None, "the image explains it"


async def test_a_sparse_image_that_went_waits_for_nothing(hosted: Hosted, database: Database) -> None:
    await hosted.create("team/empty", Settings(sparse="images"), 1.0)
    await put(hosted, image(), "1", name="team/empty")
    await hosted.remove("team/empty", Digest.of(image()), 20.0, 30.0)
    assert await rows(database, WAITED_FOR) == []
    await blobs(database, "team/empty")
    assert await rows(database, "SELECT * FROM reference") == []


async def test_a_manifest_makes_its_repository_or_does_not(hosted: Hosted, database: Database) -> None:
    refused = await hosted.put("team/new", pushed(image()), 10.0, Settings())
    assert isinstance(refused, Refused)
    assert await hosted.settings("team/new") is None
    taken = await hosted.put("team/new", pushed(index()), 10.0, Settings(description="new"))
    assert taken == Put(True, {}, born=True)
    assert await hosted.settings("team/new") == Settings(description="new")
    assert await hosted.put("team/new", pushed(index()), 10.0, Settings()) == Put(False, {})
    with pytest.raises(NoRepository):
        await hosted.put("team/none", pushed(index()), 10.0)


async def test_only_a_repository_that_nobody_uses_is_dropped(hosted: Hosted, database: Database) -> None:
    await hosted.create("team/empty", Settings(), 1.0)
    pushing = Pushing(database)
    await pushing.begin("team/empty", "a" * 32, "user:alice", "sha256", 1.0, 9)
    assert not await hosted.drop_empty("team/empty", 2.0)
    await pushing.end("a" * 32, 2.0)
    assert await hosted.drop_empty("team/empty", 2.0)
    assert await hosted.settings("team/empty") is None
    for name in ("team/empty", TEAM):
        assert not await hosted.drop_empty(name, 2.0)


async def test_what_was_sent_goes_with_the_repository(hosted: Hosted, database: Database) -> None:
    pushing = Pushing(database)
    await pushing.begin(TEAM, "a" * 32, "user:alice", "sha256", 1.0, 9)
    await pushing.add("a" * 32, Chunk("uploads/one", 0, 5), 1.0, 9)
    assert await hosted.delete(TEAM, 30.0, force=True)
    assert await rows(database, "SELECT path, not_before FROM trash") == [("uploads/one", 30.0)]
    assert await rows(database, "SELECT * FROM chunk") == []
