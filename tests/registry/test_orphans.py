from __future__ import annotations

import os
from pathlib import Path

from cacheproxy.core.digest import Digest
from cacheproxy.registry.orphans import GRACE, sweep
from cacheproxy.store.disk import DiskContent
from tests.registry.world import TARGET, World, world

NOW = 1_000_000.0
BLOB = b"a layer"
DIGEST = Digest.of(BLOB)


def stored(content: DiskContent, age: float = GRACE + 1) -> str:
    """A file as a fill leaves it before its row is committed."""
    partial = content.partial(DIGEST, len(BLOB))
    partial.write(0, [BLOB])
    location = content.commit(partial).path
    partial.close()
    os.utime(content.root / location, (NOW - age, NOW - age))
    return location


def content_of(cache: World) -> DiskContent:
    assert isinstance(cache.content, DiskContent)
    return cache.content


async def test_a_file_without_a_row_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        assert await sweep(content_of(cache), cache.records, NOW) == 1
        assert not (cache.content.root / location).exists()


async def test_a_file_that_may_yet_get_its_row_stays(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache), age=GRACE - 1)
        assert await sweep(content_of(cache), cache.records, NOW) == 0
        assert (cache.content.root / location).exists()


async def test_a_file_with_its_row_stays_and_another_generation_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        kept, lost = stored(content_of(cache)), stored(content_of(cache))
        await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
        await cache.records.record_blob(DIGEST, len(BLOB), kept, 1, NOW)
        assert await sweep(content_of(cache), cache.records, NOW) == 1
        assert (cache.content.root / kept).exists()
        assert not (cache.content.root / lost).exists()


async def test_a_file_in_the_trash_is_the_trashs(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
        await cache.records.record_blob(DIGEST, len(BLOB), location, 1, NOW)
        assert len(await cache.records.evict(await cache.records.evictable(1), NOW + 10)) == 1
        assert await sweep(content_of(cache), cache.records, NOW) == 0
        assert (cache.content.root / location).exists()


async def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        folder = cache.content.root / "blobs" / "sha256" / "aa"
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
        os.utime(folder / "notes.txt", (0, 0))
        assert await sweep(content_of(cache), cache.records, NOW) == 0
        assert (folder / "notes.txt").exists()
