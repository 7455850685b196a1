"""The stores that lines of registries start over."""

from __future__ import annotations

import time
from pathlib import Path

from bench import hosted
from bench.hosted import FULL, fill
from cacheproxy.config import load
from cacheproxy.store.collection import Collection
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.wiring import open_database


def configuration(folder: Path) -> Path:
    config = folder / "config"
    config.write_text(f'[storage]\nstate = "{folder}"\n')
    return config


async def listed(database: Database, last: str, n: int) -> list[str]:
    return await Hosted(database).tags(FULL, last, n)


async def test_a_full_repository_has_its_tags_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    await fill(config, "tags", 25)
    async with open_database(load(config).storage) as database:
        assert await listed(database, "", 100) == [*(hosted.tag(number) for number in range(25)), "latest"]
        assert await listed(database, hosted.tag(20), 3) == [hosted.tag(number) for number in (21, 22, 23)]


async def test_blobs_that_nothing_keeps_all_go(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    await fill(config, "blobs", 25)
    async with open_database(load(config).storage) as database:
        collection, now = Collection(database), time.time()
        assert (await collection.backlog(now)).items == 25
        swept = await collection.sweep(await collection.due(now, 100), now, 60.0)
        assert (swept.blobs, swept.images) == (25, 0)
