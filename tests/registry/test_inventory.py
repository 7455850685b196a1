from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.core.freshness import FreshRule, StaleRule
from cacheproxy.core.manifest import Descriptor
from cacheproxy.core.patterns import Patterns
from cacheproxy.registry.inventory import Inventory, platform_of
from cacheproxy.registry.origin import Origin
from cacheproxy.store.survey import Survey
from tests.registry.world import DAY, HOUR, TARGET, World, manifest, world


class NoFills:
    def held(self, digest: Digest) -> int | None:
        return None


@asynccontextmanager
async def inventory(
    folder: Path, fresh: float = HOUR, keep: float = math.inf
) -> AsyncIterator[tuple[World, Inventory]]:
    async with world(folder) as built:
        rules = (FreshRule(Patterns(("**",)), fresh),)
        origins = {"hub": Origin(built.upstream, rules, StaleRule(DAY, frozenset()), 0.0)}
        fills: Any = NoFills()
        survey = Survey(built.records._database)
        yield built, Inventory(built.records, survey, fills, built.missing, origins, {"hub": keep})


async def test_a_tag_is_fresh_for_its_rules_time(tmp_path: Path) -> None:
    async with inventory(tmp_path) as (built, told):
        built.upstream.push("1", manifest(b"{}", b"layer"))
        await built.manifests.get(TARGET, "1")
        tag = (await told.explain(TARGET, "1")).tag
    assert tag is not None
    assert (tag.checked, tag.fresh_until) == (built.now, built.now + HOUR)


async def test_a_tag_may_be_fresh_for_ever(tmp_path: Path) -> None:
    async with inventory(tmp_path, fresh=math.inf) as (built, told):
        built.upstream.push("1", manifest(b"{}", b"layer"))
        await built.manifests.get(TARGET, "1")
        tag = (await told.explain(TARGET, "1")).tag
    assert tag is not None
    assert tag.fresh_until is None


async def test_what_is_not_here_goes_at_no_time(tmp_path: Path) -> None:
    async with inventory(tmp_path, keep=DAY) as (built, told):
        built.upstream.push("1", manifest(b"{}", b"layer"))
        await built.manifests.get(TARGET, "1")
        explained = await told.explain(TARGET, "1")
    assert [blob.here for blob in explained.images[0].blobs] == [False, False]
    assert (explained.older_bytes, explained.kept_until) == (None, None)


async def test_what_is_kept_for_a_time_goes_when_that_is_over(tmp_path: Path) -> None:
    async with inventory(tmp_path, keep=DAY) as (built, told):
        built.upstream.push("1", manifest(b"{}", b"layer"))
        await built.manifests.get(TARGET, "1")
        await built.records.record_blob(Digest.of(b"layer"), 5, "blobs/x", 1, built.now)
        explained = await told.explain(TARGET, "1")
    assert (explained.older_bytes, explained.kept_until) == (0, built.now + DAY)


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64"),
        ({}, None),
        (None, None),
    ],
)
def test_a_platform_is_said_as_people_write_it(platform: dict[str, str] | None, said: str | None) -> None:
    assert platform_of(Descriptor("", Digest.of(b""), 1, {}, platform=platform)) == said
