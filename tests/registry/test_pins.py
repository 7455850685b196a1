from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.registry.pins import Pin, Pins
from tests.registry.world import TARGET, World, manifest, world


async def pulled(built: World) -> Digest:
    digest = built.upstream.push("1", manifest(b"{}", b"layer"))
    await built.manifests.get(TARGET, "1")
    return digest


async def test_a_tag_and_a_digest_can_be_pinned(tmp_path: Path) -> None:
    async with world(tmp_path) as built:
        digest = await pulled(built)
        pins = Pins(built.records)
        assert await pins.pin(TARGET, "1") == Pin(TARGET.repository, "1")
        await pins.pin(TARGET, digest)
        await pins.pin(TARGET, "1")
        assert await pins.all() == [Pin(TARGET.repository, "1"), Pin(TARGET.repository, digest)]
        await pins.unpin(TARGET, "1")
        assert await pins.all() == [Pin(TARGET.repository, digest)]


async def test_what_is_not_here_cannot_be_pinned(tmp_path: Path) -> None:
    async with world(tmp_path) as built:
        await pulled(built)
        for reference in ("2", Digest.of(b"x")):
            with pytest.raises(OCIError, match="prefetch it first"):
                await Pins(built.records).pin(TARGET, reference)


async def test_what_is_not_pinned_cannot_be_unpinned(tmp_path: Path) -> None:
    async with world(tmp_path) as built:
        with pytest.raises(OCIError, match="is not pinned"):
            await Pins(built.records).unpin(TARGET, "1")
