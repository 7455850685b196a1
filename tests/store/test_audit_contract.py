"""The audit over every database, and over every store of bytes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
import trio

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.invariants import Finding, Stored
from cacheproxy.store import audit as audit_module
from cacheproxy.store.audit import RULES, UPLOAD_KEPT, Audit, Rule, Seen
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.listing import Beside, Folder, Listing, Objects
from cacheproxy.store.objects import ObjectContent
from cacheproxy.store.proofs import ADD_QUARANTINE
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sessions import Chunk
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.taking import Pushed, Put
from tests.store.hosting import host
from tests.store.images import (
    CHILD,
    CONFIG_BYTES,
    LAYER,
    LAYER_BYTES,
    LAYER_DIGEST,
    REPOSITORY,
    descriptor,
    image,
    index,
    record,
)

NOW = 1_000.0


async def findings(
    database: Database, listing: Listing, *, before: float = 0, deep: bool = True
) -> list[Finding]:
    return [finding async for finding in Audit(database, listing, before, deep).findings()]


async def run(database: Database, sql: str, **named: object) -> None:
    await database.write(lambda tx: tx.run(sql, **named))


def stored(content: Content, data: bytes) -> tuple[str, int]:
    partial = content.partial(Digest.of(data), len(data))
    try:
        partial.write(0, [data])
        return content.commit(partial)
    finally:
        partial.close()


def listing_of(content: Content) -> Listing:
    return Objects(content.bucket) if isinstance(content, ObjectContent) else Folder(content.root)


async def keep(records: Records, content: Content, data: bytes) -> str:
    path, generation = stored(content, data)
    await records.record_blob(Digest.of(data), len(data), path, generation, NOW)
    return path


# Rows.


@pytest.fixture
def nothing(tmp_path: Path) -> Listing:
    return Folder(tmp_path / "nothing")


async def test_what_pulls_record_is_as_it_should_be(
    database: Database, records: Records, nothing: Listing
) -> None:
    subject = await record(records, image(), "latest")
    await record(records, image(), "latest", repository="quay.io/library/alpine")
    await record(records, image(note="signed", subject=subject, artifact="application/x.signature"))
    await record(records, index(subject, CHILD), "all")
    await records.record_checked(REPOSITORY, "latest", NOW, CHILD)
    await run(database, "INSERT INTO trash (path, not_before) VALUES ('blobs/later', 100.0)")
    audit = Audit(database, nothing, 50.0, deep=True)
    assert [finding async for finding in audit.findings()] == []
    assert audit.seen == Seen(images=4, blobs=0, files=0, hashed=0)


DAMAGE = {
    "UPDATE manifest SET body = :other": ("I4", "bytes have another digest"),
    "UPDATE image SET size = size + 1": ("I10", "the manifest has"),
    "UPDATE image SET subject = :digest": ("I11", "disagree on a subject"),
    "UPDATE image SET artifact_type = 'application/x'": ("I11", "disagree on an artifact type"),
    "UPDATE image SET media_type = 'text/html'": ("I3", "cannot be read"),
    "DELETE FROM reference WHERE digest = :layer": ("I3", f"disagree on blobs: {LAYER_DIGEST}"),
    "INSERT INTO child (repository, image, digest) SELECT repository, digest, :digest FROM image": (
        "I3",
        "disagree on children",
    ),
    "DELETE FROM link WHERE digest = :layer": ("I3", "no link"),
    "INSERT INTO trash (path, not_before) VALUES ('blobs/x', 1.0)": ("I7", "wait to be unlinked"),
    "INSERT INTO manifest (digest, body) VALUES (:digest, :other)": ("I8", "no image has"),
}


@pytest.mark.parametrize("sql", DAMAGE)
async def test_damaged_rows_are_found(
    sql: str, database: Database, records: Records, nothing: Listing
) -> None:
    await record(records, image(), "latest")
    named = {"other": image(note="another"), "digest": Digest.of(b"another"), "layer": LAYER_DIGEST}
    await run(database, sql, **{name: value for name, value in named.items() if f":{name}" in sql})
    (finding,) = await findings(database, nothing, before=NOW)
    invariant, said = DAMAGE[sql]
    assert (finding.invariant, said in finding.what) == (invariant, True), finding


async def test_a_stored_file_must_not_be_in_the_trash(
    database: Database, records: Records, tmp_path: Path
) -> None:
    content = DiskContent(tmp_path / "content")
    path = await keep(records, content, LAYER_BYTES)
    await run(database, "INSERT INTO trash (path, not_before) VALUES (:path, 2000.0)", path=path)
    (finding,) = await findings(database, listing_of(content), before=NOW)
    assert (finding.invariant, finding.where, finding.remedy) == ("I8", LAYER_DIGEST, None)


@pytest.mark.parametrize(
    "sql", ["DELETE FROM manifest", "DELETE FROM image", "DELETE FROM blob", "DELETE FROM repository"]
)
async def test_rows_that_the_schema_forbids_are_found(
    sql: str, database: Database, records: Records, nothing: Listing, tmp_path: Path
) -> None:
    await record(records, image(), "latest")
    if isinstance(database, SQLite):
        connection = apsw.Connection(str(tmp_path / "rows.db"))
        connection.execute(sql)
        connection.close()
    else:

        def unchecked(tx: Tx) -> None:
            tx.run("SET LOCAL session_replication_role = replica")
            tx.run(sql)

        await database.write(unchecked)
    found = {finding.invariant for finding in await findings(database, nothing)}
    assert found & ({"I9"} if isinstance(database, SQLite) else {"I3", "I4", "I6", "I8"})


@pytest.mark.parametrize("rule", RULES)
async def test_every_rule_is_sql_that_both_databases_read(rule: Rule, database: Database) -> None:
    named = {"before": NOW} if ":before" in rule.sql else {}
    assert await database.scan(lambda tx: tx.all(rule.sql, **named)) == []


async def test_many_manifests_are_looked_at_by_pages(
    database: Database, records: Records, nothing: Listing
) -> None:
    for number in range(70):
        await record(records, image(note=str(number)))
    audit = Audit(database, nothing, NOW, deep=False)
    assert [finding async for finding in audit.findings()] == []
    assert audit.seen.images == 70


# Hosted repositories.

FOREIGN = Digest.of(b"a layer that is elsewhere")


def with_foreign_layer() -> bytes:
    manifest = json.loads(image())
    manifest["layers"].append({**descriptor(LAYER, FOREIGN, 9), "urls": ["https://elsewhere.example/layer"]})
    return json.dumps(manifest).encode()


async def push(database: Database, content: Content, body: bytes) -> None:
    await host(database, "team/app")
    for data in (CONFIG_BYTES, LAYER_BYTES):
        location, generation = stored(content, data)
        named = (Digest.of(data), len(data), location, generation, NOW, NOW)
        await Pushing(database).record("team/app", "0" * 32, *named)
    pushed = Pushed(Digest.of(body), body, manifests.parse(body), ("1",))
    assert isinstance(await Hosted(database).put("team/app", pushed, NOW), Put)


async def test_what_pushes_record_is_as_it_should_be(database: Database, content: Content) -> None:
    await push(database, content, with_foreign_layer())
    await Pushing(database).begin("team/app", "1" * 32, "anna", "sha256", NOW, 10)
    assert await findings(database, listing_of(content), before=NOW + UPLOAD_KEPT) == []


async def test_a_pushed_image_without_its_bytes_is_found(database: Database, content: Content) -> None:
    await push(database, content, image())
    await run(database, "UPDATE blob SET generation = 0, location = '' WHERE digest = :d", d=LAYER_DIGEST)
    (finding,) = await findings(database, listing_of(content))
    assert finding.invariant == "I3"
    assert finding.where == f"team/app@{Digest.of(image())} {LAYER_DIGEST}"
    assert "push it again" in finding.advice


async def test_a_layer_that_is_elsewhere_may_be_named_all_the_same(
    database: Database, records: Records, nothing: Listing
) -> None:
    await record(records, with_foreign_layer())
    assert await findings(database, nothing) == []


async def test_an_upload_past_its_time_is_found(database: Database, nothing: Listing) -> None:
    await host(database, "team/app")
    await Pushing(database).begin("team/app", "1" * 32, "anna", "sha256", NOW, 10)
    assert await findings(database, nothing, before=NOW + UPLOAD_KEPT) == []
    (finding,) = await findings(database, nothing, before=NOW + UPLOAD_KEPT + 1)
    assert (finding.invariant, finding.where) == ("I7", "team/app " + "1" * 32)


# Bytes.


@dataclass
class Shop:
    database: Database
    records: Records
    content: Content
    listing: Listing

    async def findings(self, *, before: float = 1e12, deep: bool = True) -> list[tuple[str, str, str | None]]:
        """Files are of today: that is before all of 1e12."""
        found = await findings(self.database, self.listing, before=before, deep=deep)
        return [(finding.invariant, finding.where, finding.remedy) for finding in found]


@pytest.fixture
async def shop(database: Database, records: Records, content: Content) -> Shop:
    await record(records, image(), "latest")
    await keep(records, content, LAYER_BYTES)
    await keep(records, content, CONFIG_BYTES)
    return Shop(database, records, content, listing_of(content))


def put(content: Content, location: str, data: bytes) -> None:
    if isinstance(content, ObjectContent):
        content.bucket.put(location, len(data), iter([data]))
    else:
        (content.root / location).parent.mkdir(parents=True, exist_ok=True)
        (content.root / location).write_bytes(data)


async def location(shop: Shop, digest: Digest) -> str:
    row = await shop.records.any_blob(digest)
    assert row is not None
    return row.location


async def test_what_was_stored_is_as_it_should_be(shop: Shop) -> None:
    audit = Audit(shop.database, shop.listing, 1e12, deep=True)
    assert [finding async for finding in audit.findings()] == []
    assert audit.seen == Seen(1, 2, 2, len(LAYER_BYTES) + len(CONFIG_BYTES))


async def test_bytes_that_are_not_there_are_found(shop: Shop) -> None:
    shop.content.remove(await location(shop, LAYER_DIGEST))
    assert await shop.findings() == [("I8", LAYER_DIGEST, "forget")]


async def test_bytes_of_another_size_are_found(shop: Shop) -> None:
    put(shop.content, await location(shop, LAYER_DIGEST), LAYER_BYTES[1:])
    assert await shop.findings() == [("I10", LAYER_DIGEST, "forget")]


async def test_other_bytes_are_found_by_hashing(shop: Shop) -> None:
    put(shop.content, await location(shop, LAYER_DIGEST), LAYER_BYTES[::-1])
    assert await shop.findings(deep=False) == []
    assert await shop.findings() == [("I2", LAYER_DIGEST, None)]


async def test_bytes_without_a_row_are_found_once_they_are_old(shop: Shop) -> None:
    path, _ = stored(shop.content, b"nobody's")
    assert await shop.findings(before=0) == []
    assert await shop.findings() == [("I8", path, "remove")]


SESSION = "a" * 32


async def beside(shop: Shop) -> list[str]:
    """Leave what kills leave: of an upload, and of what was set aside. The places."""
    if isinstance(shop.content, ObjectContent):
        places = [f"uploads/{SESSION}/{0:020}.{'b' * 16}"]
    else:
        places = [f"uploads/{SESSION}", f"quarantine/sha256-{LAYER_DIGEST.hex}.7"]
    for where in places:
        put(shop.content, where, b"left")
    return places


async def test_what_is_left_beside_the_blobs_is_found_once_it_is_old(shop: Shop) -> None:
    places = await beside(shop)
    assert await shop.findings(before=0) == []
    assert await shop.findings() == [("I7", where, "remove") for where in places]
    listing = listing_of(shop.content)
    assert [listing.remove(where) for where in places] == [True] * len(places)
    assert await shop.findings() == []


async def test_what_rows_know_beside_the_blobs_is_no_finding(shop: Shop, database: Database) -> None:
    places = await beside(shop)
    await host(database, "team/app")
    pushing = Pushing(database)
    await pushing.begin("team/app", SESSION, "user:alice", "sha256", 1e12, 9)
    await pushing.add(SESSION, Chunk(places[0], 0, 4), 1e12, 9)
    if len(places) > 1:
        location = f"blobs/sha256/{LAYER_DIGEST.hex[:2]}/{LAYER_DIGEST.hex}.7"
        named = {"size": 4, "found": "mismatch", "reason": "", "now": NOW, "location": location}
        await run(database, ADD_QUARANTINE, digest=LAYER_DIGEST, generation=7, **named)
    assert await shop.findings() == []


async def test_bytes_in_the_trash_are_the_trashs(shop: Shop) -> None:
    evicted = await shop.records.evict(await shop.records.evictable(2), 2e12)
    assert len(evicted) == 2
    assert await shop.findings() == []


async def test_what_is_not_ours_is_no_finding(shop: Shop) -> None:
    put(shop.content, "blobs/sha256/aa/notes", b"mine")
    put(shop.content, f"blobs/sha256/aa/{LAYER_DIGEST.hex}.7", b"in a folder that is not its own")
    assert await shop.findings() == []


async def test_a_row_whose_digest_is_none_is_found(shop: Shop) -> None:
    sql = "INSERT INTO blob (digest, size, generation, location, used) VALUES ('sha256:xyz', 1, 1, 'x', 0)"
    await run(shop.database, sql)
    assert await shop.findings() == [("I6", "sha256:xyz", None)]


async def test_a_manifest_whose_digest_is_none_is_found(
    database: Database, records: Records, nothing: Listing
) -> None:
    await record(records, image())
    copy = "SELECT repository, 'sha256:xyz', media_type, artifact_type, size, subject, 0, 0 FROM image"
    await run(database, "INSERT INTO manifest (digest, body) SELECT 'sha256:xyz', body FROM manifest")
    await run(database, f"INSERT INTO image {copy}")
    (finding,) = await findings(database, nothing)
    assert (finding.invariant, finding.where) == ("I4", f"{REPOSITORY}@sha256:xyz")


async def test_the_first_blob_may_be_stored_while_it_looks(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "STORED", "SELECT 0")
    assert await shop.findings() == []


async def test_a_store_that_is_not_there_is_no_store_without_files(
    database: Database, records: Records, tmp_path: Path
) -> None:
    content = DiskContent(tmp_path / "content")
    await keep(records, content, LAYER_BYTES)
    content.root.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="is it mounted"):
        await findings(database, listing_of(content))


async def test_many_blobs_are_looked_at_folder_by_folder(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "AT_ONCE", 1)
    monkeypatch.setattr(audit_module, "SHARDS", [f"sha256/{LAYER_DIGEST.hex[:2]}", "sha512/00"])
    put(shop.content, await location(shop, LAYER_DIGEST), LAYER_BYTES[::-1])
    shares: list[float] = []
    audit = Audit(shop.database, shop.listing, 1e12, deep=True, progress=shares.append)
    assert [finding.where async for finding in audit.findings()] == [LAYER_DIGEST]
    assert audit.seen.files == audit.seen.blobs == 1
    assert shares == [0.5, 1.0]


@dataclass
class Meanwhile:
    """A listing, beside which something happens once it was read."""

    real: Listing
    happens: Callable[[], None]
    name: str = "meanwhile"

    def stored(self, shard: str) -> Iterator[Stored]:
        yield from self.real.stored(shard)
        self.happens()

    def beside(self) -> Iterator[Beside]:
        return self.real.beside()

    def confirm(self) -> None:
        self.real.confirm()

    def chunks(self, location: str, size: int) -> Iterator[bytes | memoryview]:
        return self.real.chunks(location, size)

    def remove(self, location: str) -> bool:
        return self.real.remove(location)


@pytest.mark.parametrize("call", ["stored", "chunks"])
async def test_whoever_stops_it_waits_for_no_disk(
    call: str, database: Database, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, reached, ended = DiskContent(tmp_path / "content"), trio.Event(), threading.Event()
    await keep(records, content, LAYER_BYTES)
    listing = Folder(content.root)

    def hang(*_: object) -> Iterator[Stored]:
        trio.from_thread.run_sync(reached.set)
        ended.wait(10)
        return iter(())

    monkeypatch.setattr(listing, call, hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(findings, database, listing)
        await reached.wait()
        began = time.monotonic()
        nursery.cancel_scope.cancel()
    ended.set()
    assert time.monotonic() - began < 5


async def test_what_is_stored_meanwhile_is_no_finding(
    database: Database, records: Records, tmp_path: Path
) -> None:
    """The rows of a shard are read, then its file is listed, and gets its row only then."""
    content = DiskContent(tmp_path / "content")
    path, generation = stored(content, LAYER_BYTES)
    pending = [True]

    def commit() -> None:
        if pending:
            pending.clear()
            record_blob = records.record_blob
            trio.from_thread.run(record_blob, LAYER_DIGEST, len(LAYER_BYTES), path, generation, NOW)

    assert await findings(database, Meanwhile(Folder(content.root), commit), before=1e12) == []


async def test_what_is_evicted_meanwhile_is_no_finding(
    database: Database, records: Records, tmp_path: Path
) -> None:
    content = DiskContent(tmp_path / "content")
    path = await keep(records, content, LAYER_BYTES)
    content.remove(path)

    async def evict() -> None:
        await records.evict(await records.evictable(1), 2e12)

    assert (
        await findings(database, Meanwhile(Folder(content.root), lambda: trio.from_thread.run(evict))) == []
    )
