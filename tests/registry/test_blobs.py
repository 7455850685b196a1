from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.origin import RememberedMissing
from cacheproxy.store.errors import StoreFull
from tests.registry.conftest import pattern
from tests.registry.world import TARGET, FakeRegistry, World, manifest, world

SIZE = 2 << 20


@pytest.fixture
def upstream() -> FakeRegistry:
    registry = FakeRegistry(data=pattern(SIZE))
    registry.push("latest", manifest(b"{}", registry.data))
    return registry


async def read(view: BlobView) -> bytes:
    span, got = Span(0, view.size, bounded=False), bytearray()
    while len(got) < view.size:
        count = await view.available(len(got), span)
        fd = view.fileno()
        got += os.pread(fd, count, len(got)) if fd is not None else await view.read(len(got), count)
    return bytes(got)


async def pull(cache: World, digest: Digest) -> tuple[bytes, str]:
    view, outcome = await cache.blobs.open(TARGET, digest)
    try:
        return await read(view), outcome
    finally:
        view.close()


async def pull_and_keep(cache: World, digest: Digest) -> None:
    await pull(cache, digest)
    with trio.fail_after(60):
        while (row := await cache.records.any_blob(digest)) is None or row.generation == 0:
            await trio.sleep(0.05)


async def test_a_named_blob_is_fetched_without_asking_first(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        assert await pull(cache, upstream.digest) == (upstream.data, "miss")
    assert upstream.calls == ["GET latest"]


async def test_a_kept_blob_asks_nobody(tmp_path: Path, upstream: FakeRegistry, clock: MockClock) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        upstream.failure = Cause.DNS
        assert await pull(cache, upstream.digest) == (upstream.data, "hit")
    assert len(upstream.answers) == 1


async def test_a_blob_that_nothing_names_is_asked_for_in_its_repository(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        assert await pull(cache, upstream.digest) == (upstream.data, "miss")
        await pull(cache, upstream.digest)
    assert upstream.calls == [f"HEAD blob {upstream.digest}"]


async def test_a_missing_blob_is_remembered(tmp_path: Path, upstream: FakeRegistry, clock: MockClock) -> None:
    other = Digest.of(b"nobody has it")
    async with world(tmp_path, upstream) as cache:
        with pytest.raises(UpstreamError):
            await pull(cache, other)
        with pytest.raises(RememberedMissing):
            await pull(cache, other)
    assert upstream.calls == [f"HEAD blob {other}"]


async def test_head_starts_no_fill(tmp_path: Path, upstream: FakeRegistry, clock: MockClock) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        found = await cache.blobs.locate(TARGET, upstream.digest)
    assert found.size == SIZE
    assert upstream.answers == []


async def test_a_blob_of_another_repository_needs_its_own_proof(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        other = replace(TARGET, repository="hub/other", remote="other")
        upstream.failure = Cause.MISSING
        with pytest.raises(UpstreamError):
            await cache.blobs.open(other, upstream.digest)


async def test_a_stored_blob_that_is_gone_is_fetched_again(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        for file in (tmp_path / "blobs" / "blobs").rglob("*.*"):
            file.unlink()
        assert await pull(cache, upstream.digest) == (upstream.data, "miss")
        await pull_and_keep(cache, upstream.digest)
        assert cache.space.used == SIZE
        assert (await pull(cache, upstream.digest))[1] == "hit"


async def test_a_file_whose_row_has_no_room_does_not_stay(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreFull(28, "no room in the database")

    async with world(tmp_path, upstream) as cache:
        monkeypatch.setattr(cache.records, "record_blob", full)
        await cache.manifests.get(TARGET, "latest")
        for _ in range(2):
            assert (await pull(cache, upstream.digest))[0] == upstream.data
            await trio.sleep(1)
        assert [path for path in cache.content.root.rglob("*") if path.is_file()] == []
