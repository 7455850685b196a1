"""A disk that is too small, or gets full: clients go on being served, and what fits again is kept again.

As root: file systems are mounted.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.e2e.disks import fill_up, memory_disk
from tests.faults.house import House, Image, hosts, house
from tests.origin import Plan

pytestmark = pytest.mark.root

MIB = 1 << 20
UNCACHED = "cacheproxy_uncached_total"
EVICTED = "cacheproxy_evicted_bytes_total"
ALL = 'budget = "100%"'


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    with memory_disk(folder / "disk", 8 * MIB) as mounted:
        yield mounted


def layer(size: int, seed: int = 5) -> bytes:
    return random.Random(seed).randbytes(size)


def fetched(h: House, image: Image) -> int:
    return sum(h.registry.origin.bytes_sent(digest) for digest in image.blobs)


async def test_layer_larger_than_the_disk_passes_through(disk: Path) -> None:
    async with house(disk, cache=ALL) as h:
        large, small = h.image("library/large", layer(20 * MIB)), h.image("library/small", layer(MIB))
        before = await h.metric(UNCACHED)
        for pulls in (1, 2):
            await h.pull(large)
            assert await h.metric(UNCACHED) == before + pulls
        assert h.registry.origin.bytes_sent(large.layers[0]) == 2 * 20 * MIB
        await h.pull(small)
        once = fetched(h, small)
        await h.pull(small)
        assert fetched(h, small) == once, "what fits is kept as ever"


async def test_disk_that_gets_full_in_the_middle_of_a_layer(disk: Path) -> None:
    async with house(disk, cache=ALL) as h:
        image = h.image("library/layered", layer(5 * MIB))
        assert (await h.ask(image.manifest_path())).status == 200
        before = await h.metric(UNCACHED)
        h.registry.origin.rate = 10 * MIB
        async with h.asking(image.blob_path(image.layers[0])) as client:
            assert (await client.head()).status == 200
            start = await client.take(MIB)
            filler = fill_up(disk)
            body = start + await client.rest()
        assert body == image.blobs[image.layers[0]]
        await h.quiet()
        assert await h.metric(UNCACHED) == before + 1
        assert list((h.state / "blobs" / "partial").iterdir()) == []
        h.registry.origin.rate = None
        await h.pull(image)
        filler.unlink()
        await h.pull(image)
        sent = fetched(h, image)
        await h.pull(image)
        assert fetched(h, image) == sent, "kept since there is room"


async def test_full_disk_serves_everything(disk: Path) -> None:
    """The rows are on it too."""
    async with house(disk, cache=ALL) as h:
        old = h.image("library/old", layer(MIB))
        await h.pull(old)
        await h.quiet()
        filler = fill_up(disk)
        new = h.image("library/new", layer(MIB, 6))
        for _ in range(2):
            await h.pull(new)
            await h.pull(old)
        filler.unlink()
        await h.pull(new)
        sent = fetched(h, new)
        await h.pull(new)
        assert fetched(h, new) == sent, "kept since there is room"


async def test_daemon_starts_on_a_full_disk(disk: Path) -> None:
    async with hosts(disk, cache=ALL) as h:
        image = h.image("library/old", layer(MIB))
        async with h.daemon():
            await h.pull(image)
        filler = fill_up(disk)
        async with h.daemon():
            await h.pull(image)
            new = h.image("library/new", layer(MIB, 6))
            await h.pull(new)
            filler.unlink()
            await h.pull(new)


async def test_over_the_budget_older_layers_go(folder: Path) -> None:
    async with house(folder, cache='budget = "3MiB"') as h:
        first, second = h.image("library/first", layer(2 * MIB)), h.image("library/second", layer(2 * MIB, 6))
        await h.pull(first)
        before = await h.metric(UNCACHED), await h.metric(EVICTED)
        await h.pull(second)
        assert await h.metric(UNCACHED) == before[0]
        assert await h.metric(EVICTED) >= before[1] + 2 * MIB
        sent = fetched(h, second)
        await h.pull(second)
        assert fetched(h, second) == sent
        await h.pull(first)
        assert h.registry.origin.bytes_sent(first.layers[0]) == 2 * 2 * MIB, "its rows had stayed"


async def test_layer_larger_than_the_budget_passes_through_and_nothing_goes_for_it(folder: Path) -> None:
    async with house(folder, cache='budget = "3MiB"') as h:
        first, large = h.image("library/first", layer(2 * MIB)), h.image("library/large", layer(4 * MIB, 6))
        await h.pull(first)
        before = await h.metric(UNCACHED)
        await h.pull(large)
        assert await h.metric(UNCACHED) == before + 1
        sent = fetched(h, first)
        await h.pull(first)
        assert fetched(h, first) == sent


async def test_full_disk_is_relieved(disk: Path) -> None:
    """What others fill is made good by what was not pulled for the longest time."""
    async with house(disk, cache=ALL) as h:
        old, new = h.image("library/old", layer(3 * MIB)), h.image("library/new", layer(2 * MIB, 6))
        await h.pull(old)
        await h.quiet()
        filler = fill_up(disk)
        os.truncate(filler, filler.stat().st_size - MIB)
        await h.pull(new)
        sent = fetched(h, new)
        await h.pull(new)
        assert fetched(h, new) == sent, "there was room for it, since the old one went"


async def test_disk_without_any_room_is_relieved(disk: Path) -> None:
    """Not even that something goes can be written down at first."""
    async with hosts(disk, cache=ALL) as h:
        old, new = h.image("library/old", layer(3 * MIB)), h.image("library/new", layer(MIB, 6))
        async with h.daemon():
            await h.pull(old)
        fill_up(disk)
        async with h.daemon():
            for _ in range(3):
                await h.pull(new)
                await h.quiet()
            sent = fetched(h, new)
            await h.pull(new)
            assert fetched(h, new) == sent, "there was room for it, since the old one went"


async def test_disk_full_while_many_follow_one_download(disk: Path) -> None:
    """Each goes on alone, from where it is."""
    async with house(disk, cache=ALL) as h:
        image = h.image("library/layered", layer(4 * MIB))
        assert (await h.ask(image.manifest_path())).status == 200
        fillers = list[Path]()

        def change(plan: Plan) -> None:
            plan.rate = 8 * MIB
            h.later(fills)

        async def fills() -> None:
            await trio.sleep(0.1)
            fillers.append(fill_up(disk))

        h.registry.origin.fault({"kind": "blob"}, change, times=1)

        async def client() -> None:
            heard = await h.ask(image.blob_path(image.layers[0]))
            assert (heard.status, heard.body == image.blobs[image.layers[0]]) == (200, True)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client)
        fillers[0].unlink()
        await h.pull(image)
