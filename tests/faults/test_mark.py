"""A daemon that finds other bytes than those its rows know does not start, and touches nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from cacheproxy import config
from cacheproxy.app import main
from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import StoreNotOurs
from cacheproxy.store.mark import NAME
from tests.faults.house import House, hosts

LAYER = b"a layer of the image"


async def refused(house: House, said: str) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(StoreNotOurs, match=said), allow_unwrapped=True, flatten_subgroups=True
    ):
        await main(config.load(house.file), trio.Event())


async def test_a_disk_that_is_not_mounted_is_no_empty_one(folder: Path) -> None:
    """After an end in order, when nothing else is looked at."""
    async with hosts(folder) as house:
        image = house.image("library/debian", LAYER)
        async with house.daemon():
            await house.pull(image)
            await house.quiet()
        blobs = house.state / "blobs"
        blobs.rename(folder / "away")
        await refused(house, "is the disk mounted")
        shutil.rmtree(blobs)  # what the start made of the mount point
        (folder / "away").rename(blobs)
        asked = house.asked("blob")
        async with house.daemon():
            await house.pull(image)
        assert house.asked("blob") == asked


async def test_blobs_that_are_lost_for_good_are_fetched_again_once_that_is_said(folder: Path) -> None:
    async with hosts(folder) as house:
        image = house.image("library/debian", LAYER)
        async with house.daemon():
            await house.pull(image)
            await house.quiet()
        blobs = house.state / "blobs"
        name = (blobs / NAME).read_text()
        shutil.rmtree(blobs)
        blobs.mkdir()
        await refused(house, f"write {name.strip()} there")
        (blobs / NAME).write_text(name)
        async with house.daemon():
            await house.pull(image)


async def test_an_empty_database_in_place_of_the_stores_own_removes_nothing(folder: Path) -> None:
    async with hosts(folder) as house:
        image = house.image("library/debian", LAYER)
        async with house.daemon():
            await house.pull(image)
            await house.quiet()
        for file in house.state.glob("cacheproxy.db*"):
            file.rename(folder / file.name)
        await refused(house, "another installation")
        hex_digest = Digest.of(LAYER).hex
        assert list((house.state / "blobs").rglob(f"{hex_digest}.*"))
