"""A daemon ends in the middle of a download, in whatever way: the next one goes on where the disk ends."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.store.disk import DiskContent
from tests.faults.house import House, Image, hosts
from tests.origin import Seen

MIB = 1 << 20
ONE, RANGED = 'parallel = "never"', 'parallel = { from = "1MiB", ranges = 4 }'
IN_FLIGHT = 3 * MIB
"""Bytes that the upstream has sent, and that have not come as far as the file."""

Runs = list[tuple[int, int]]


def on_the_disk(h: House, image: Image) -> Runs:
    """What the journal of the unfinished layer promises."""
    digest = Digest.parse(image.layers[0])
    partial = DiskContent(h.state / "blobs").partial(digest, len(image.blobs[digest]))
    try:
        return list(partial.intervals)
    finally:
        partial.close()


def asked_for(seen: Iterable[Seen], size: int) -> Runs:
    """The bytes that each transfer was to bring."""
    found = []
    for transfer in seen:
        if transfer.carries_blob:
            first, last = re.findall(r"bytes=(\d+)-(\d*)", transfer.range or "bytes=0-")[0]
            found.append((int(first), int(last or size - 1) + 1))
    return found


def overlap(some: Runs, others: Runs) -> int:
    return sum(max(0, min(b, d) - max(a, c)) for a, b in some for c, d in others)


def total(runs: Runs) -> int:
    return sum(stop - start for start, stop in runs)


async def begun(h: House, size: int) -> Image:
    """An image whose manifest is here."""
    image = h.image("library/layered", random.Random(9).randbytes(size))
    assert (await h.ask(image.manifest_path())).status == 200
    return image


async def until_sent(h: House, image: Image, count: int) -> None:
    with trio.fail_after(20):
        while h.registry.origin.bytes_sent(image.layers[0]) < count:
            await trio.sleep(0.01)


async def assert_nothing_comes_twice(h: House, image: Image, kept: Runs, sent_before: int) -> None:
    size = len(image.blobs[image.layers[0]])
    before = len(h.registry.origin.seen)
    heard = await h.ask(image.blob_path(image.layers[0]))
    assert (heard.status, heard.body == image.blobs[image.layers[0]]) == (200, True)
    asked = asked_for(h.registry.origin.seen[before:], size)
    assert overlap(asked, kept) == 0
    assert total(asked) == size - total(kept)
    assert h.registry.origin.bytes_sent(image.layers[0]) - sent_before == size - total(kept)
    await h.pull(image)


@pytest.mark.parametrize(("cache", "size"), [(ONE, 8 * MIB), (RANGED, 40 * MIB)], ids=["one", "ranged"])
async def test_daemon_cut_in_the_middle(cache: str, size: int, folder: Path) -> None:
    async with hosts(folder, cache=cache) as h:
        async with h.daemon(), trio.open_nursery() as clients:
            image = await begun(h, size)
            h.registry.origin.rate = size // (4 if cache == RANGED else 1)
            clients.start_soon(h.ask, image.blob_path(image.layers[0]))
            await until_sent(h, image, size // 2)
            h.cut()
        kept, sent = on_the_disk(h, image), h.registry.origin.bytes_sent(image.layers[0])
        assert sent - IN_FLIGHT <= total(kept) <= sent < size
        h.registry.origin.rate = None
        async with h.daemon():
            await assert_nothing_comes_twice(h, image, kept, sent)


@pytest.mark.parametrize(("cache", "size"), [(ONE, 24 * MIB), (RANGED, 40 * MIB)], ids=["one", "ranged"])
async def test_daemon_killed_in_the_middle(cache: str, size: int, folder: Path) -> None:
    """What was not flushed comes again, and nothing else does."""
    async with hosts(folder, cache=cache, name="127.0.0.1") as h:
        async with h.process() as process:
            image = await begun(h, size)
            h.registry.origin.rate = size / (4 if cache == RANGED else 1)
            async with h.asking(image.blob_path(image.layers[0])) as client:
                await until_sent(h, image, size * 2 // 3)
                process.kill()
                await process.wait()
                assert len(await client.rest()) < size
        kept, sent = on_the_disk(h, image), h.registry.origin.bytes_sent(image.layers[0])
        assert 8 * MIB <= total(kept) <= sent < size
        h.registry.origin.rate = None
        async with h.daemon():
            await assert_nothing_comes_twice(h, image, kept, sent)


async def test_drained_daemon_lets_its_answers_end(folder: Path) -> None:
    async with hosts(folder) as h:
        async with h.daemon(), trio.open_nursery() as clients:
            image = await begun(h, 4 * MIB)
            h.registry.origin.rate = 4 * MIB
            bodies = list[bytes]()

            async def client() -> None:
                bodies.append((await h.ask(image.blob_path(image.layers[0]))).body)

            clients.start_soon(client)
            await until_sent(h, image, MIB)
            h.drain()
        assert bodies == [image.blobs[image.layers[0]]]
        async with h.daemon():
            await h.pull(image)
        assert h.registry.origin.bytes_sent(image.layers[0]) == 4 * MIB


async def test_unfinished_file_that_was_damaged_is_not_believed(folder: Path) -> None:
    """Its journal promises bytes that were overwritten since: the pull fails, the next one is whole."""
    async with hosts(folder) as h:
        async with h.daemon(), trio.open_nursery() as clients:
            image = await begun(h, 8 * MIB)
            h.registry.origin.rate = 8 * MIB
            clients.start_soon(h.ask, image.blob_path(image.layers[0]))
            await until_sent(h, image, 4 * MIB)
            h.cut()
        [file] = (h.state / "blobs" / "partial").glob("*.part")
        with file.open("r+b") as damaged:
            damaged.seek(MIB)
            damaged.write(bytes(100))
        h.registry.origin.rate = None
        async with h.daemon():
            heard = await h.ask(image.blob_path(image.layers[0]))
            assert not heard.whole
            await h.pull(image)


async def test_stored_file_that_is_gone_is_fetched_again(folder: Path) -> None:
    async with hosts(folder) as h:
        async with h.daemon():
            image = await begun(h, 2 * MIB)
            await h.pull(image)
        for file in (h.state / "blobs" / "blobs").rglob("*.*"):
            file.unlink()
        async with h.daemon():
            await h.pull(image)
            sent = h.asked("blob")
            await h.pull(image)
            assert h.asked("blob") == sent
