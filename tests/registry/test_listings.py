from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.media import OCI_INDEX, OCI_MANIFEST
from cacheproxy.core.name import fallback_tag
from cacheproxy.registry.manifests import PATIENCE
from tests.registry.world import HOUR, TARGET, FakeRegistry, manifest, world

IMAGE = manifest(b"{}", b"layer")
SUBJECT = Digest.of(IMAGE)


def descriptor(text: bytes) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(text)), "size": len(text)}


@pytest.fixture
def upstream() -> FakeRegistry:
    registry = FakeRegistry()
    registry.push("b", IMAGE)
    registry.push("a", IMAGE)
    return registry


async def test_tags_are_the_upstreams_sorted(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        assert (await cache.listings.tags(TARGET)).items == ["a", "b"]


async def test_a_list_is_kept_for_the_rules_time(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.listings.tags(TARGET)
        cache.pass_time(HOUR - 1)
        upstream.push("c", IMAGE)
        assert (await cache.listings.tags(TARGET)).outcome == "hit"
        cache.pass_time(2)
        assert (await cache.listings.tags(TARGET)).items == ["a", "b", "c"]
    assert upstream.calls == ["tags", "tags"]


async def test_a_failing_upstream_leaves_the_old_list(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.listings.tags(TARGET)
        cache.pass_time(2 * HOUR)
        upstream.failure = Cause.DNS
        pulled = await cache.listings.tags(TARGET)
    assert (pulled.items, pulled.outcome) == (["a", "b"], "stale")
    assert pulled.failure is not None


async def test_a_hanging_upstream_gets_little_time_when_a_list_is_here(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.listings.tags(TARGET)
        cache.pass_time(2 * HOUR)
        upstream.push("c", IMAGE)
        upstream.delay = 30
        began = trio.current_time()
        pulled = await cache.listings.tags(TARGET)
        assert trio.current_time() - began < PATIENCE + 1
        assert (pulled.items, pulled.outcome) == (["a", "b"], "stale")
        await trio.sleep(30)
        assert (await cache.listings.tags(TARGET)).items == ["a", "b", "c"], "it was only slow"
    assert upstream.calls == ["tags", "tags"]


async def test_without_an_old_list_the_tags_that_are_here_are_listed(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "b")
        upstream.failure = Cause.DNS
        assert (await cache.listings.tags(TARGET)).items == ["b"]


async def test_with_nothing_here_the_failure_is_told(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.failure = Cause.DNS
    async with world(tmp_path, upstream) as cache:
        with pytest.raises(UpstreamError):
            await cache.listings.tags(TARGET)


async def test_referrers_come_from_the_api(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.listed_referrers = [descriptor(b"sbom")]
    async with world(tmp_path, upstream) as cache:
        assert (await cache.listings.referrers(TARGET, SUBJECT)).items == [descriptor(b"sbom")]


async def test_without_the_api_the_fallback_tag_is_read(tmp_path: Path, upstream: FakeRegistry) -> None:
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(b"signature")]}
    upstream.media_type = None
    upstream.push(fallback_tag(SUBJECT), msgspec.json.encode(index))
    async with world(tmp_path, upstream) as cache:
        assert (await cache.listings.referrers(TARGET, SUBJECT)).items == [descriptor(b"signature")]


async def test_an_empty_list_may_be_null(tmp_path: Path, upstream: FakeRegistry) -> None:
    """As Go writes it."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": None}
    upstream.media_type = None
    upstream.push(fallback_tag(SUBJECT), msgspec.json.encode(index))
    async with world(tmp_path, upstream) as cache:
        assert (await cache.listings.referrers(TARGET, SUBJECT)).items == []


async def test_without_either_there_are_none(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        assert (await cache.listings.referrers(TARGET, SUBJECT)).items == []


async def test_what_is_cached_is_listed_too_and_once(tmp_path: Path, upstream: FakeRegistry) -> None:
    cached = manifest(b"{}", b"sbom", subject=SUBJECT, artifact_type="application/sbom")
    digest = upstream.push("sbom", cached)
    upstream.listed_referrers = [descriptor(b"other")]
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "sbom")
        items = (await cache.listings.referrers(TARGET, SUBJECT)).items
        upstream.listed_referrers = [*upstream.listed_referrers, items[1]]
        cache.pass_time(2 * HOUR)
        again = (await cache.listings.referrers(TARGET, SUBJECT)).items
    assert [item["digest"] for item in items] == [Digest.of(b"other"), digest]
    assert items[1]["artifactType"] == "application/sbom"
    assert again == items


async def test_what_is_forgotten_is_asked_for_anew(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.listed_referrers = [descriptor(b"signature")]
    async with world(tmp_path, upstream) as cache:
        for _ in range(2):
            await cache.listings.tags(TARGET)
            await cache.listings.referrers(TARGET, SUBJECT)
        await cache.listings.forget(TARGET.repository)
        upstream.listed_referrers = []
        assert (await cache.listings.referrers(TARGET, SUBJECT)).items == []
        assert (await cache.listings.tags(TARGET)).outcome == "miss"
    assert upstream.calls == ["tags", "referrers", "referrers", "tags"]
