"""What is due, claimed, proven and quarantined, on every database (see conftest.DATABASES)."""

from __future__ import annotations

import math

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database
from cacheproxy.store.proofs import ASKED, BATCH_BYTES, Left, Proofs
from cacheproxy.store.records import Records
from cacheproxy.store.rows import BlobRow

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
NOW, DAY = 1_000_000.0, 86400.0


@pytest.fixture
def proofs(database: Database) -> Proofs:
    return Proofs(database)


async def store(records: Records, digest: Digest, stored: float, size: int = 7) -> BlobRow:
    location = f"blobs/sha256/{digest.hex[:2]}/{digest.hex}.5"
    await records.record_link("hub/x", "hub", digest, size, stored)
    await records.record_blob(digest, size, location, 5, stored)
    return BlobRow(digest, size, 5, location)


async def claimed(proofs: Proofs, before: float = NOW, free: float = math.inf, n: int = 10) -> list[Digest]:
    return [blob.digest for blob in await proofs.claim(before, free, lambda size: NOW + size, n)]


async def test_what_was_proven_longest_ago_is_due_first(records: Records, proofs: Proofs) -> None:
    for digest, stored in ((A, 3.0), (B, 1.0), (C, 2.0)):
        await store(records, digest, stored)
    assert await claimed(proofs) == [B, C, A]


async def test_storing_proves(records: Records, proofs: Proofs) -> None:
    await store(records, A, NOW - DAY)
    assert await claimed(proofs, before=NOW - DAY) == []
    assert await claimed(proofs, before=NOW - DAY + 1) == [A]


async def test_what_has_no_bytes_is_never_due(records: Records, proofs: Proofs) -> None:
    await records.record_link("hub/x", "hub", A, 7, 1.0)
    assert await claimed(proofs) == []


async def test_a_claim_holds_until_it_runs_out(records: Records, proofs: Proofs) -> None:
    await store(records, A, 1.0, size=100)
    assert await claimed(proofs, free=NOW) == [A]
    assert await claimed(proofs, free=NOW + 100) == []
    assert await claimed(proofs, free=NOW + 101) == [A]


async def test_a_claim_that_is_released_is_free(records: Records, proofs: Proofs) -> None:
    blob = await store(records, A, 1.0)
    assert await claimed(proofs, free=NOW) == [A]
    await proofs.release([blob])
    assert await claimed(proofs, free=NOW) == [A]


async def test_a_claim_is_of_few_bytes_or_of_one_blob(records: Records, proofs: Proofs) -> None:
    await store(records, A, 1.0, size=2 * BATCH_BYTES)
    await store(records, B, 2.0, size=BATCH_BYTES)
    await store(records, C, 3.0)
    assert await claimed(proofs, free=NOW) == [A]
    assert await claimed(proofs, free=NOW) == [B]
    assert await claimed(proofs, free=NOW) == [C]


async def test_what_is_proven_is_due_no_more(records: Records, proofs: Proofs) -> None:
    blob = await store(records, A, 1.0)
    await proofs.prove([blob], NOW)
    assert await claimed(proofs) == []
    assert await proofs.left(NOW) == Left(0, 0)


async def test_the_proof_of_another_generation_proves_nothing(records: Records, proofs: Proofs) -> None:
    blob = await store(records, A, 1.0)
    await proofs.prove([BlobRow(A, 7, 4, blob.location)], NOW)
    assert await claimed(proofs) == [A]


async def test_what_somebody_wants_comes_first_however_new_it_is(records: Records, proofs: Proofs) -> None:
    await store(records, A, 1.0)
    await store(records, B, NOW)
    await proofs.want([B])
    assert await claimed(proofs) == [B, A]
    assert await proofs.left(ASKED) == Left(1, 7)


async def test_everything_can_be_wanted(
    records: Records, proofs: Proofs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacheproxy.store.proofs.PAGE", 2)
    for digest in (A, B, C):
        await store(records, digest, 1.0)
    await proofs.want_all(NOW)
    assert await proofs.left(ASKED) == Left(3, 21)


async def test_all_is_what_was_proven_by_a_clock_that_went_ahead(records: Records, proofs: Proofs) -> None:
    for digest, stored in ((A, NOW - 1), (B, NOW), (C, NOW + DAY)):
        await store(records, digest, stored)
    await proofs.want_all(NOW)
    assert await proofs.left(ASKED) == Left(3, 21)


async def test_what_is_quarantined_has_no_bytes_and_its_place_is_kept(
    records: Records, proofs: Proofs
) -> None:
    blob = await store(records, A, 1.0)
    assert await proofs.quarantine(blob, "mismatch", "is another", NOW)
    row = await records.any_blob(A)
    assert row is not None
    assert (row.generation, row.location) == (0, "")
    (item,) = await proofs.quarantined()
    assert (item.digest, item.generation, item.size, item.location) == (A, 5, 7, blob.location)
    assert (item.found, item.reason, item.noticed) == ("mismatch", "is another", NOW)


async def test_of_what_is_missing_nothing_is_kept(records: Records, proofs: Proofs) -> None:
    blob = await store(records, A, 1.0)
    assert await proofs.quarantine(blob, "missing", "is not there", NOW)
    assert [item.location for item in await proofs.quarantined()] == [""]


async def test_a_generation_is_quarantined_once(records: Records, proofs: Proofs) -> None:
    blob = await store(records, A, 1.0)
    assert await proofs.quarantine(blob, "mismatch", "first", NOW)
    assert not await proofs.quarantine(blob, "mismatch", "second", NOW)
    await records.record_blob(A, 7, blob.location.replace(".5", ".6"), 6, NOW)
    assert not await proofs.quarantine(blob, "mismatch", "late", NOW)
    row = await records.any_blob(A)
    assert row is not None
    assert row.generation == 6


async def test_what_leaves_quarantine_goes_into_the_trash(records: Records, proofs: Proofs) -> None:
    blobs = [await store(records, digest, 1.0) for digest in (A, B)]
    for blob in blobs:
        await proofs.quarantine(blob, "mismatch", "", NOW)
    by_digest = {item.digest: item for item in await proofs.quarantined()}
    await proofs.let_go([by_digest[A]], [by_digest[B]], NOW)
    assert [(item.digest, item.location) for item in await proofs.quarantined()] == [(A, "")]
    assert sorted(await records.due_trash(NOW, 10)) == sorted(blob.location for blob in blobs)


async def test_repositories_that_have_a_blob(records: Records, proofs: Proofs) -> None:
    await store(records, A, 1.0)
    await records.record_link("hub/a", "hub", A, 7, 1.0)
    assert await proofs.repositories(A) == ["hub/a", "hub/x"]
    assert await proofs.repositories(A, 1) == ["hub/a"]
    assert await proofs.repositories(B) == []


async def test_what_was_stored_last_is_told_the_latest_first(records: Records, proofs: Proofs) -> None:
    assert await proofs.lately(10.0, 5) == []
    rows = {
        digest: await store(records, digest, stored) for digest, stored in ((A, 80.0), (B, 95.0), (C, 90.0))
    }
    assert await proofs.lately(10.0, 5) == [rows[B], rows[C]]
    assert await proofs.lately(10.0, 1) == [rows[B]]
    await records.forget_bytes(B, 5)
    assert await proofs.lately(10.5, 5) == [rows[C], rows[A]]
