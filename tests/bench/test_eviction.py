"""The store that the line of eviction starts over."""

from __future__ import annotations

from pathlib import Path

from bench.eviction import BESIDE, CLIENTS, SIZE, budget, fill
from cacheproxy.config import load
from cacheproxy.registry.space import LOW
from cacheproxy.store.records import Records
from cacheproxy.wiring import open_database

BLOBS = 1_000


def test_so_many_blobs_are_what_is_above_the_low_mark() -> None:
    above = budget(BLOBS) - int(LOW * budget(BLOBS))
    assert abs(above - BLOBS * SIZE) <= 1


async def test_store_has_room_for_the_clients_blobs_and_little_more(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f'[storage]\nstate = "{tmp_path}"\n')
    await fill(config, BLOBS)
    async with open_database(load(config).storage) as database:
        records = Records(database)
        left = budget(BLOBS) - await records.cached_bytes()
        oldest = await records.evictable(2 * BLOBS)
    assert left == CLIENTS * BESIDE + (1 << 20)
    assert [blob.size for blob in oldest[: BLOBS + BLOBS // 10]] == [SIZE] * (BLOBS + BLOBS // 10)
    assert all((tmp_path / "blobs" / blob.location).exists() for blob in oldest[:-1])
