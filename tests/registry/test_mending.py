from __future__ import annotations

from pathlib import Path

from cacheproxy.core.digest import Digest
from cacheproxy.core.invariants import Finding
from cacheproxy.registry.mending import mend
from cacheproxy.store.listing import Folder
from tests.registry.test_orphans import BLOB, DIGEST, NOW, content_of, stored
from tests.registry.world import TARGET, World, world


def listing(cache: World) -> Folder:
    return Folder(cache.content.root)


async def test_missing_bytes_are_forgotten_if_they_are_still_those(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
        await cache.records.record_blob(DIGEST, len(BLOB), stored(content_of(cache)), 5, NOW)
        finding = Finding("I8", "", DIGEST, "", "forget", generation=4)
        assert not await mend(finding, cache.records, listing(cache))
        finding = Finding("I8", "", DIGEST, "", "forget", generation=5)
        assert await mend(finding, cache.records, listing(cache))
        row = await cache.records.any_blob(DIGEST)
    assert row is not None
    assert row.generation == 0


async def test_an_orphan_is_removed(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        assert await mend(Finding("I8", "", location, "", "remove"), cache.records, listing(cache))
        assert not (cache.content.root / location).exists()


async def test_the_trash_is_emptied_whether_the_file_is_there_or_not(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
        await cache.records.record_blob(DIGEST, len(BLOB), location, 1, NOW)
        await cache.records.evict(await cache.records.evictable(1), NOW)
        for _ in range(2):
            assert await mend(Finding("I7", "", location, "", "empty"), cache.records, listing(cache))
        assert not (cache.content.root / location).exists()
        assert await cache.records.due_trash(NOW + 1, 1) == []


async def test_what_somebody_has_to_decide_is_left_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        finding = Finding("I2", "", Digest.of(b"x"), "")
        assert not await mend(finding, cache.records, listing(cache))
