"""Clients as they are: many, lazy, slow, parallel, gone in the middle. No byte is fetched twice for them."""

from __future__ import annotations

import email
import random
from collections.abc import Awaitable, Callable
from email.message import Message
from pathlib import Path

import pytest
import trio

from tests.faults.client import Heard
from tests.faults.house import House, Image, house
from tests.origin import faults

KIB, MIB = 1 << 10, 1 << 20
STEP = 256 * KIB
"""What a small read fetches at least."""


IN_FLIGHT = MIB
"""What an upstream may have sent that was not received when it was left."""


def pattern(size: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size)


async def layered(h: House, layer: bytes) -> Image:
    """An image whose manifest is here, and whose layer is not."""
    image = h.image("library/layered", layer)
    assert (await h.ask(image.manifest_path())).status == 200
    return image


def layer_path(image: Image) -> str:
    return image.blob_path(image.layers[0])


def fetched(h: House, image: Image) -> int:
    return h.registry.origin.bytes_sent(image.layers[0])


def transfers(h: House, image: Image) -> int:
    return h.registry.origin.blob_transfers(image.layers[0])


async def all_at_once(count: int, client: Callable[[int], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(client, number)


async def test_a_hundred_clients_of_one_cold_blob_are_one_transfer(folder: Path) -> None:
    layer = pattern(2 * MIB)
    async with house(folder) as h:
        image = await layered(h, layer)
        h.registry.origin.latency = 0.1

        async def client(_: int) -> None:
            heard = await h.ask(layer_path(image))
            assert (heard.status, heard.body == layer) == (200, True)

        await all_at_once(100, client)
        assert (transfers(h, image), fetched(h, image)) == (1, len(layer))
        await h.pull(image)
        assert transfers(h, image) == 1


async def test_followers_get_all_when_the_first_client_hangs_up(folder: Path) -> None:
    layer = pattern(3 * MIB)
    async with house(folder) as h:
        image = await layered(h, layer)
        h.registry.origin.rate = 8 * MIB
        async with h.asking(layer_path(image)) as leader:
            assert (await leader.head()).status == 200
            heard = list[Heard]()

            async def follower(_: int) -> None:
                heard.append(await h.ask(layer_path(image)))

            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(follower, number)
                await leader.take(100 * KIB)
                await leader.hang_up()
        assert [(answer.status, answer.body == layer) for answer in heard] == [(200, True)] * 5
        assert (transfers(h, image), fetched(h, image)) == (1, len(layer))


@pytest.mark.parametrize(
    ("finish", "taken", "goes_on"),
    [("50%", 0.1, False), ("50%", 0.7, True), ("never", 0.7, False), ("0%", 0.1, True)],
)
async def test_download_that_all_left_goes_on_by_the_rule(
    finish: str, taken: float, goes_on: bool, folder: Path
) -> None:
    layer = pattern(4 * MIB)
    async with house(folder, cache=f'finish_fill = "{finish}"') as h:
        image = await layered(h, layer)
        h.registry.origin.rate = 8 * MIB
        async with h.asking(layer_path(image)) as client:
            await client.head()
            assert await client.take(int(taken * len(layer))) == layer[: int(taken * len(layer))]
        await h.quiet()
        assert (fetched(h, image) == len(layer)) == goes_on
        h.registry.origin.rate = None
        heard = await h.ask(layer_path(image))
        assert heard.body == layer
        assert transfers(h, image) == (1 if goes_on else 2)
        assert fetched(h, image) <= len(layer) + IN_FLIGHT
        await h.pull(image)


async def test_clients_that_give_up_before_anything_came_leave_nothing(folder: Path) -> None:
    async with house(folder) as h:
        image = await layered(h, pattern(2 * MIB))
        h.registry.origin.fault({"kind": "blob"}, faults.stall(-1))

        async def client(_: int) -> None:
            with trio.move_on_after(0.3):
                await h.ask(layer_path(image))

        await all_at_once(20, client)
        await h.quiet()
        assert h.asked("blob") == 1
        await h.heal()
        await h.pull(image)


async def test_hanging_up_at_any_moment_leaves_nothing(folder: Path) -> None:
    chance = random.Random(11)
    async with house(folder) as h:
        images = [
            h.image(f"library/storm-{n}", pattern(300 * KIB, n), pattern(2 * MIB, n + 100)) for n in range(4)
        ]
        h.registry.origin.rate = 10 * MIB
        moments = [chance.uniform(0, 0.4) for _ in range(80)]

        async def client(number: int) -> None:
            with trio.move_on_after(moments[number]):
                await h.pull(images[number % len(images)])

        await all_at_once(len(moments), client)
        h.registry.origin.rate = None
        for image in images:
            await h.pull(image)


@pytest.mark.parametrize(
    ("size", "chunk", "cache"),
    [
        (8 * MIB, 2 * MIB, 'parallel = "never"'),
        (40 * MIB, 8 * MIB, 'parallel = { from = "1MiB", ranges = 4 }'),
    ],
    ids=["one transfer", "ranged transfers"],
)
async def test_open_ended_ranges_that_are_cut_after_their_chunk(
    size: int, chunk: int, cache: str, folder: Path
) -> None:
    """containerd's parallel fetch: `bytes=N-` each, hanging up once the chunk is there."""
    async with house(folder, cache=cache) as h:
        image = await layered(h, pattern(size))
        layer = image.blobs[image.layers[0]]
        h.registry.origin.rate = 40 * MIB

        async def client(number: int) -> None:
            at = number * chunk
            async with h.asking(layer_path(image), Range=f"bytes={at}-") as request:
                head = await request.head()
                assert head.status == 206
                assert head.headers["content-range"] == f"bytes {at}-{size - 1}/{size}"
                assert await request.take(chunk) == layer[at : at + chunk]

        await all_at_once(size // chunk, client)
        await h.quiet()
        assert fetched(h, image) == size
        await h.pull(image)
        assert fetched(h, image) == size


async def test_bounded_ranges_at_once_fetch_what_they_name(folder: Path) -> None:
    """SOCI's snapshotter: sixteen spans of a cold layer."""
    layer = pattern(16 * MIB)
    spans = [(n * MIB + 1000, n * MIB + 50_000) for n in range(16)]
    async with house(folder) as h:
        image = await layered(h, layer)

        async def client(number: int) -> None:
            start, stop = spans[number]
            heard = await h.ask(layer_path(image), Range=f"bytes={start}-{stop - 1}")
            assert (heard.status, heard.body == layer[start:stop]) == (206, True)
            assert heard.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(layer)}"

        await all_at_once(len(spans), client)
        await h.quiet()
        assert fetched(h, image) <= len(spans) * STEP
        await h.pull(image)
        assert fetched(h, image) == len(layer)


async def test_probe_footer_and_several_ranges(folder: Path) -> None:
    """stargz: may I have ranges? the footer; the table before it; then files here and there."""
    layer = pattern(5 * MIB)
    size = len(layer)
    async with house(folder) as h:
        image = await layered(h, layer)
        for start, stop in [(0, 2), (size - 51, size), (size - 40_000, size - 51)]:
            heard = await h.ask(layer_path(image), Range=f"bytes={start}-{stop - 1}")
            assert (heard.status, heard.body == layer[start:stop]) == (206, True)
        spans = [(1000, 2000), (MIB, MIB + 300), (3 * MIB, 3 * MIB + 1)]
        heard = await h.ask(
            layer_path(image), Range="bytes=" + ",".join(f"{start}-{stop - 1}" for start, stop in spans)
        )
        assert (heard.status, heard.whole) == (206, True)
        parts = _parts(heard)
        assert [part["Content-Range"] for part in parts] == [
            f"bytes {start}-{stop - 1}/{size}" for start, stop in spans
        ]
        assert [part.get_payload(decode=True) for part in parts] == [
            layer[start:stop] for start, stop in spans
        ]
        assert fetched(h, image) <= 5 * STEP
        await h.pull(image)
        assert fetched(h, image) == size


async def test_slow_reader_holds_nobody(folder: Path) -> None:
    layer = pattern(12 * MIB)
    async with house(folder) as h:
        image = await layered(h, layer)
        async with h.asking(layer_path(image), buffer=4096) as slow:
            assert (await slow.head()).status == 200
            start = await slow.take(1000)

            async def client(_: int) -> None:
                assert (await h.ask(layer_path(image))).body == layer

            await all_at_once(3, client)
            assert (transfers(h, image), fetched(h, image)) == (1, len(layer))
            await h.pull(image)
            assert start + await slow.rest() == layer


def _parts(heard: Heard) -> list[Message]:
    head = f"Content-Type: {heard.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + heard.body).get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message)]
