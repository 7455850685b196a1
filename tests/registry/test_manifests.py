from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.freshness import StaleRule
from cacheproxy.core.settings import Settings
from cacheproxy.registry.manifests import PATIENCE, PulledManifest
from cacheproxy.registry.origin import RememberedMissing
from cacheproxy.store.errors import StoreFull
from tests.registry.world import DAY, HOUR, TARGET, FakeRegistry, World, manifest, world

FIRST, SECOND = manifest(b"{}", b"layer 1"), manifest(b"{}", b"layer 2")


@pytest.fixture
def upstream() -> FakeRegistry:
    registry = FakeRegistry()
    registry.push("latest", FIRST)
    return registry


async def pull(cache: World, reference: Digest | str = "latest") -> PulledManifest:
    return await cache.manifests.get(TARGET, reference)


async def test_a_tag_is_fetched_with_one_request(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        pulled = await pull(cache)
    assert (pulled.body, pulled.outcome) == (FIRST, "miss")
    assert upstream.calls == ["GET latest"]


async def test_a_fresh_tag_asks_nobody(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        cache.pass_time(HOUR - 1)
        pulled = await pull(cache)
    assert (pulled.body, pulled.outcome) == (FIRST, "hit")
    assert upstream.calls == ["GET latest"]


async def test_a_tag_past_its_time_is_confirmed_with_one_head(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        cache.pass_time(HOUR + 1)
        pulled = await pull(cache)
        assert (await pull(cache)).outcome == "hit"
    assert pulled.outcome == "hit"
    assert upstream.calls == ["GET latest", "HEAD latest"]


async def test_a_tag_that_moved_is_fetched_by_digest(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        moved = upstream.push("latest", SECOND)
        cache.pass_time(HOUR + 1)
        assert (await pull(cache)).body == SECOND
    assert upstream.calls == ["GET latest", "HEAD latest", f"GET {moved}"]


async def test_a_tag_that_stays_where_it_is_asks_nobody_once_it_is_here(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    born = Settings(immutable=True, except_tags=("edge",))
    upstream.push("edge", FIRST)
    async with world(tmp_path, upstream, born=lambda name: born) as cache:
        await pull(cache)
        await pull(cache, "edge")
        upstream.push("latest", SECOND)
        upstream.push("edge", SECOND)
        cache.pass_time(30 * DAY)
        calls = len(upstream.calls)
        pulled = await pull(cache)
        assert (pulled.body, pulled.outcome, pulled.fresh_until) == (FIRST, "hit", math.inf)
        assert upstream.calls[calls:] == []
        assert (await pull(cache, "edge")).body == SECOND


async def test_a_tag_that_moved_back_fetches_nothing(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        upstream.push("latest", SECOND)
        cache.pass_time(HOUR + 1)
        await pull(cache)
        upstream.push("latest", FIRST)
        cache.pass_time(HOUR + 1)
        calls = len(upstream.calls)
        assert (await pull(cache)).body == FIRST
    assert upstream.calls[calls:] == ["HEAD latest"]


async def test_an_upstream_whose_head_says_nothing_is_asked_by_get(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    upstream.head_has_digest = False
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        upstream.push("latest", SECOND)
        cache.pass_time(HOUR + 1)
        assert (await pull(cache)).body == SECOND


async def test_a_digest_never_asks_again(tmp_path: Path, upstream: FakeRegistry) -> None:
    digest = Digest.of(FIRST)
    async with world(tmp_path, upstream) as cache:
        assert (await pull(cache, digest)).outcome == "miss"
        cache.pass_time(1000 * DAY)
        pulled = await pull(cache, digest)
    assert (pulled.outcome, pulled.fresh_until) == ("hit", math.inf)
    assert upstream.calls == [f"GET {digest}"]


async def test_many_who_miss_share_one_request(
    tmp_path: Path, upstream: FakeRegistry, autojump_clock: MockClock
) -> None:
    upstream.delay = 1
    outcomes: list[str] = []
    async with world(tmp_path, upstream) as cache:

        async def one() -> None:
            outcomes.append((await pull(cache)).outcome)

        async with trio.open_nursery() as clients:
            for _ in range(10):
                clients.start_soon(one)
    assert sorted(outcomes) == ["coalesced"] * 9 + ["miss"]
    assert upstream.calls == ["GET latest"]


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.MISSING}))
async def test_a_failing_upstream_leaves_what_is_here(
    tmp_path: Path, upstream: FakeRegistry, cause: Cause
) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        cache.pass_time(DAY)
        upstream.failure = cause
        pulled = await pull(cache)
    assert (pulled.body, pulled.outcome, pulled.age) == (FIRST, "stale", DAY)
    assert pulled.failure is not None
    assert pulled.failure.cause is cause


async def test_a_cause_that_the_rule_leaves_out_is_not_covered(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    async with world(tmp_path, upstream, stale=StaleRule(DAY, frozenset({Cause.DNS}))) as cache:
        await pull(cache)
        cache.pass_time(HOUR + 1)
        upstream.failure = Cause.AUTH
        with pytest.raises(UpstreamError):
            await pull(cache)


async def test_too_old_is_not_served(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream, stale=StaleRule(2 * HOUR, frozenset({Cause.DNS}))) as cache:
        await pull(cache)
        cache.pass_time(3 * HOUR + 1)
        upstream.failure = Cause.DNS
        with pytest.raises(UpstreamError):
            await pull(cache)


async def test_a_stale_answer_is_not_taken_for_a_check(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        cache.pass_time(HOUR + 1)
        upstream.failure = Cause.SERVER
        await pull(cache)
        upstream.failure = None
        upstream.push("latest", SECOND)
        assert (await pull(cache)).body == SECOND


async def test_a_hanging_upstream_gets_little_time_when_something_is_here(
    tmp_path: Path, upstream: FakeRegistry, autojump_clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        cache.pass_time(HOUR + 1)
        upstream.delay = 3600
        began = trio.current_time()
        assert (await pull(cache)).outcome == "stale"
    assert trio.current_time() - began < PATIENCE + 1


async def test_the_old_image_is_served_until_the_new_one_is_here(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        moved = upstream.push("latest", SECOND)
        del upstream.manifests[moved]
        upstream.manifests = {}
        upstream.failure = None
        cache.pass_time(HOUR + 1)

        async def failing(*_: object, **__: object) -> object:
            raise UpstreamError(Cause.THROTTLED, "answered 429", "hub")

        real = upstream.get_manifest
        upstream.get_manifest = failing  # type: ignore[method-assign, assignment]
        assert (await pull(cache)).body == FIRST
        row = await cache.records.tag(TARGET.repository, "latest")
        upstream.get_manifest = real  # type: ignore[method-assign]
        upstream.push("latest", SECOND)
        calls = len(upstream.calls)
        assert (await pull(cache)).body == SECOND
    assert row is not None
    assert row.pending == moved
    assert upstream.calls[calls:] == ["GET latest"]


async def test_a_move_that_cannot_be_followed_is_not_for_ever(tmp_path: Path, upstream: FakeRegistry) -> None:
    """What HEAD told of is gone before it was fetched: the tag itself is the last word."""
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        moved = upstream.push("latest", SECOND)
        cache.pass_time(HOUR + 1)
        del upstream.manifests[moved]
        calls = len(upstream.calls)
        assert (await pull(cache)).body == SECOND
    assert upstream.calls[calls:] == ["HEAD latest", f"GET {moved}", "GET latest"]


async def test_a_missing_tag_is_remembered_for_a_while(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        with pytest.raises(UpstreamError):
            await pull(cache, "nope")
        with pytest.raises(RememberedMissing):
            await pull(cache, "nope")
    assert upstream.calls == ["GET nope"]


async def test_nothing_is_remembered_where_the_time_is_zero(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream, missing_for=0) as cache:
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await pull(cache, "nope")
    assert upstream.calls == ["GET nope", "GET nope"]


async def test_a_refused_right_is_never_remembered(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.failure = Cause.AUTH
    async with world(tmp_path, upstream) as cache:
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await pull(cache)
    assert len(upstream.calls) == 2


async def test_a_tag_that_is_gone_upstream_is_gone_here(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with world(tmp_path, upstream) as cache:
        await pull(cache)
        upstream.tags.clear()
        cache.pass_time(HOUR + 1)
        with pytest.raises(UpstreamError) as failure:
            await pull(cache)
        assert (await pull(cache, Digest.of(FIRST))).body == FIRST
    assert failure.value.cause is Cause.MISSING


async def test_a_manifest_that_is_not_valid_is_not_kept(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.push("broken", b'{"schemaVersion": 2, "layers": [')
    async with world(tmp_path, upstream) as cache:
        with pytest.raises(UpstreamError) as failure:
            await pull(cache, "broken")
        assert await cache.records.tag(TARGET.repository, "broken") is None
    assert failure.value.cause is Cause.PROTOCOL


async def test_a_full_disk_serves_without_keeping(
    tmp_path: Path, upstream: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreFull(28, "No space left on device")

    async with world(tmp_path, upstream) as cache:
        monkeypatch.setattr(cache.records, "record_image", full)
        pulled = await pull(cache)
        assert await cache.records.tag(TARGET.repository, "latest") is None
    assert (pulled.body, pulled.outcome) == (FIRST, "bypass")
