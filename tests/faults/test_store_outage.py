"""The object store's process is killed under a running daemon, and comes back."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from cacheproxy.commands.daemon import Daemon
from cacheproxy.store import bucket
from tests.commands.desk import Desk
from tests.faults.client import asking
from tests.faults.house import Image
from tests.faults.test_object_store import Cache, daemon
from tests.seaweed import PORTS, own_ports, seaweed

MIB = 1 << 20
LARGE, SMALL, NEW = (random.Random(size).randbytes(size) for size in (24 * MIB, MIB, MIB + 1))


async def pulled(cache: Cache, image: Image) -> None:
    """Whole and right, whoever has the bytes."""
    assert (await cache.ask(image.manifest_path())).status == 200
    for digest in image.layers:
        heard = await cache.ask(image.blob_path(digest))
        assert (heard.status, heard.whole, heard.body == image.blobs[digest]) == (200, True, True)


async def kept(cache: Cache, image: Image) -> None:
    """The store takes them again, be it after some pulls."""
    with trio.fail_after(120):
        while not all(cache.stored(digest) and cache._location(digest) for digest in image.layers):
            await pulled(cache, image)
            await trio.sleep(0.2)


@pytest.mark.timeout(300)
async def test_pulls_outlast_a_store_that_goes_away_and_comes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "RETRIES", 1)  # each costs seconds, and changes nothing here
    ports = own_ports(len(PORTS))
    with ExitStack() as stores:
        first = stores.enter_context(ExitStack())
        server = first.enter_context(seaweed(folder / "seaweed", ports=ports))
        async with daemon(folder, server) as cache:
            old = cache.house.image("library/old", LARGE, SMALL)
            new = cache.house.image("library/new", NEW)
            for digest in old.layers:
                await cache.pull_and_keep(old, digest)

            # In the middle of an answer, whose rest then comes from the upstream.
            async with asking(cache._address, old.blob_path(old.layers[0]), buffer=4096) as answer:
                assert (await answer.head()).status == 200
                got = await answer.take(MIB)
                await trio.to_thread.run_sync(first.close)
                got += await answer.take(len(LARGE) - MIB)
            assert got == LARGE

            for image in (old, new):
                await pulled(cache, image)
            assert cache._location(old.layers[1]), "that a store is away says nothing about what it has"

            again = seaweed(folder / "seaweed", ports=ports)
            await trio.to_thread.run_sync(stores.enter_context, again)
            await kept(cache, new)
            asked = cache.house.registry.origin.bytes_sent(old.layers[1])
            await pulled(cache, old)
            assert cache.house.registry.origin.bytes_sent(old.layers[1]) == asked, "from the store, as before"
            told = Daemon([cache.house.state / "admin.sock"])
            assert (await trio.to_thread.run_sync(told.get, "/status"))["condition"]["fills"] == []
        await Desk(cache.house).says("fsck", "--deep")
