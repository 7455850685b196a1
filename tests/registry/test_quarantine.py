from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.registry.quarantine import KEPT, KEPT_BYTES, passed
from cacheproxy.store.database import Tx
from cacheproxy.store.disk import place
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreFull
from cacheproxy.store.proofs import ADD_QUARANTINE, PAGE, Quarantined
from cacheproxy.store.rows import BlobRow
from tests.registry.world import TARGET, World, world
from tests.store.hosting import host, rows

BLOB = b"a layer"
DIGEST = Digest.of(BLOB)
LINK = """
INSERT INTO link (repository, digest, size) SELECT id, :digest, 1 FROM repository WHERE name = 'team/app'
"""
WRONG = BlobDamaged("is another blob", "mismatch")


async def stored(cache: World) -> BlobRow:
    partial = cache.content.partial(DIGEST, len(BLOB))
    partial.write(0, [BLOB])
    location, generation = cache.content.commit(partial)
    partial.close()
    await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), cache.now)
    await cache.records.record_blob(DIGEST, len(BLOB), location, generation, cache.now)
    cache.space.store(DIGEST, len(BLOB))
    return BlobRow(DIGEST, len(BLOB), generation, location)


def aside(cache: World) -> list[bytes]:
    folder = cache.content.root / "quarantine"
    return [file.read_bytes() for file in folder.iterdir()] if folder.exists() else []


async def test_damaged_bytes_are_nobodys_and_are_kept_aside(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        blob = await stored(cache)
        assert await cache.quarantine.put(blob, WRONG)
        row = await cache.records.any_blob(DIGEST)
        assert row is not None
        assert row.generation == 0
        assert not (cache.content.root / blob.location).exists()
        assert aside(cache) == [BLOB]
        assert cache.space.used == 0
        (damage,) = await cache.quarantine.damage()
        assert (damage.digest, damage.found, damage.reason, damage.kept) == (
            DIGEST,
            "mismatch",
            "is another blob",
            True,
        )


async def test_missing_bytes_are_noted(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        blob = await stored(cache)
        cache.content.remove(blob.location)
        assert await cache.quarantine.put(blob, BlobMissing("is not there"))
        (damage,) = await cache.quarantine.damage()
        assert (damage.found, damage.kept) == ("missing", False)


async def test_what_was_noted_before_counts_once(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        blob = await stored(cache)
        assert await cache.quarantine.put(blob, WRONG)
        assert not await cache.quarantine.put(blob, WRONG)
        assert cache.space.used == 0


async def test_without_room_for_rows_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> bool:
        raise StoreFull(errno.ENOSPC, "No space left on device")

    async with world(tmp_path) as cache:
        blob = await stored(cache)
        monkeypatch.setattr(cache.proofs, "quarantine", full)
        assert not await cache.quarantine.put(blob, WRONG)
        assert (cache.content.root / blob.location).exists()
        assert cache.space.used == len(BLOB)


async def test_who_leaves_does_not_keep_it_from_being_noted(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        blob = await stored(cache)
        with trio.CancelScope() as scope:
            scope.cancel()
            await cache.quarantine.put(blob, WRONG)
        assert len(await cache.quarantine.damage()) == 1
        assert cache.space.used == 0


async def test_what_was_kept_long_enough_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        await cache.quarantine.put(await stored(cache), WRONG)
        cache.pass_time(KEPT)
        await cache.quarantine.tidy()
        assert aside(cache) == [BLOB]
        cache.pass_time(1)
        await cache.quarantine.tidy()
        assert await cache.quarantine.damage() == []
        await cache.eviction.trash.empty()
        assert aside(cache) == []


async def test_what_a_kill_left_in_its_place_is_moved(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        blob = await stored(cache)
        await cache.proofs.quarantine(blob, "mismatch", "", cache.now)
        await cache.quarantine.tidy()
        assert not (cache.content.root / blob.location).exists()
        assert aside(cache) == [BLOB]


async def test_a_failing_disk_keeps_no_damage_from_being_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(location: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with world(tmp_path) as cache:
        monkeypatch.setattr(cache.content, "set_aside", failing)
        await cache.quarantine.put(await stored(cache), WRONG)
        assert len(await cache.quarantine.damage()) == 1
        assert cache.space.used == 0


async def test_damage_whose_bytes_stay_where_they_are_is_news_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(location: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with world(tmp_path) as cache:
        monkeypatch.setattr(cache.content, "set_aside", full)
        assert await cache.quarantine.put(await stored(cache), WRONG)


async def damaged(cache: World, count: int) -> None:
    """So many, of a third of what is kept each; their files do not exist."""
    for number in range(count):
        data = b"%d" % number
        digest, size = Digest.of(data), KEPT_BYTES // 3
        path, generation = place(digest, number + 1)
        await cache.records.record_blob(digest, size, path, generation, cache.now)
        cache.space.store(digest, size)
        await cache.quarantine.put(BlobRow(digest, size, generation, path), WRONG)
        cache.pass_time(1)


async def test_however_many_are_damaged_the_old_ones_give_their_room_back(tmp_path: Path) -> None:
    count = 2 * PAGE

    def note(tx: Tx) -> None:
        for number in range(count):
            digest = Digest.of(b"%d" % number)
            named = {"size": KEPT_BYTES // 3, "found": "mismatch", "reason": "", "now": cache.now + number}
            location, generation = place(digest, number + 1)
            tx.run(ADD_QUARANTINE, digest=digest, generation=generation, location=location, **named)

    async with world(tmp_path) as cache:
        await cache.proofs._database.write(note)
        await cache.quarantine.tidy()
        assert [item.kept for item in await cache.quarantine.damage()].count(True) == 3
        assert len(await cache.records.due_trash(cache.now, count)) == count - 3


async def test_much_damage_within_an_hour_fills_no_disk(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        await damaged(cache, 8)
        kept = sum(item.kept for item in await cache.quarantine.damage())
        assert kept <= 2 * 3 + 1


def item(generation: int, size: int, noticed: float, location: str = "x") -> Quarantined:
    return Quarantined(DIGEST, generation, size, location, "mismatch", "", noticed)


def test_the_newest_that_fit_are_kept() -> None:
    rows = [item(4, 5, 10.0), item(3, KEPT_BYTES, 9.0), item(2, 9, 8.0), item(1, 7, -KEPT)]
    bytes_of, rows_of = passed(rows, 10.0)
    assert [one.generation for one in bytes_of] == [3]
    assert [one.generation for one in rows_of] == [1]


def test_the_last_bytes_of_what_was_pushed_are_kept_and_take_nobodys_room() -> None:
    pushed = [replace(item(generation, KEPT_BYTES, -KEPT), last=True) for generation in (3, 2)]
    rows = [*pushed, item(1, KEPT_BYTES, 9.0)]
    assert passed(rows, 10.0) == ([], [])


async def test_damaged_bytes_that_were_pushed_stay_until_they_are_pushed_again(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        await damaged(cache, 1)
        database = cache.proofs._database
        await host(database, "team/app")
        ((digest, generation),) = await rows(database, "SELECT digest, generation FROM quarantine")
        await database.write(lambda tx: tx.run(LINK, digest=digest))
        cache.pass_time(KEPT + 1)
        await cache.quarantine.tidy()
        assert [found.kept for found in await cache.quarantine.damage()] == [True]
        location = place(Digest.parse(str(digest)), int(str(generation)) + 1)
        await cache.records.record_blob(Digest.parse(str(digest)), 1, *location, cache.now)
        await cache.quarantine.tidy()
        assert await cache.quarantine.damage() == []
