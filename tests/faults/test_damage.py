"""Stored bytes that rot, cannot be read, are cut short or gone: clients get the right ones all the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House, Image, house

LAYER = bytes(range(256)) * 8192
FAILURES = "cacheproxy_integrity_failures_total"


def stored(h: House, image: Image) -> Path:
    (file,) = (h.state / "blobs" / "blobs").rglob(f"{image.layers[0].partition(':')[2]}.*")
    return file


async def pulled(h: House) -> Image:
    image = h.image("library/layered", LAYER)
    await h.pull(image)
    await h.quiet()
    return image


def fetched(h: House, image: Image) -> int:
    return h.registry.origin.bytes_sent(image.layers[0])


async def healed(h: House, image: Image, failures: float) -> None:
    """It was noted once, fetched once more, and is a hit again."""
    await h.quiet()
    assert await h.metric(FAILURES) == failures + 1
    sent = fetched(h, image)
    await h.pull(image)
    assert fetched(h, image) == sent


async def test_a_file_that_is_gone_is_fetched_again(folder: Path) -> None:
    async with house(folder) as h:
        image, before = await pulled(h), await h.metric(FAILURES)
        stored(h, image).unlink()
        await h.pull(image)
        await healed(h, image, before)
        assert fetched(h, image) == 2 * len(LAYER)


async def test_a_file_that_is_cut_short_is_fetched_again(folder: Path) -> None:
    async with house(folder) as h:
        image, before = await pulled(h), await h.metric(FAILURES)
        os.truncate(stored(h, image), 1000)
        await h.pull(image)
        await healed(h, image, before)


async def test_a_file_that_is_cut_short_while_it_is_sent_comes_whole(folder: Path) -> None:
    large = LAYER * 8
    async with house(folder) as h:
        image, before = h.image("library/large", large), await h.metric(FAILURES)
        await h.pull(image)
        await h.quiet()
        async with h.asking(image.blob_path(image.layers[0]), buffer=4096) as client:
            assert (await client.head()).status == 200
            start = await client.take(100_000)
            os.truncate(stored(h, image), len(large) // 2)
            assert start + await client.rest() == large
        await healed(h, image, before)


@pytest.mark.parametrize("start", [0, len(LAYER) // 2])
async def test_a_file_that_cannot_be_read_is_gone_around_and_fetched_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    async with house(folder) as h:
        image, before = await pulled(h), await h.metric(FAILURES)
        bad, real = stored(h, image).stat().st_ino, os.sendfile

        def failing(out: int, source: int, offset: int, count: int) -> int:
            if os.fstat(source).st_ino != bad:
                return real(out, source, offset, count)
            if offset + count > start:
                count = start - offset
            if count <= 0:
                raise OSError(errno.EIO, "Input/output error")
            return real(out, source, offset, count)

        with monkeypatch.context() as patch:
            patch.setattr(os, "sendfile", failing)
            heard: Any = await h.ask(image.blob_path(image.layers[0]))
        assert (heard.status, heard.whole, heard.body == LAYER) == (200, True, True)
        await healed(h, image, before)


async def test_a_disk_that_cannot_sync_keeps_nothing_and_serves_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with house(folder) as h:
        image = h.image("library/layered", LAYER)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing)
            for times in (1, 2):
                await h.pull(image)
                await h.quiet()
                assert fetched(h, image) == times * len(LAYER)
        await h.pull(image)
        await h.quiet()
        sent = fetched(h, image)
        await h.pull(image)
        assert fetched(h, image) == sent, "kept since it can be"
