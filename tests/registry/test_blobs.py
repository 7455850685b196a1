from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.fill import GRACE
from cacheproxy.registry.origin import RememberedMissing
from cacheproxy.store.errors import BlobMissing, StoreFull, StoreUnreachable
from cacheproxy.store.rows import BlobRow
from tests.registry.conftest import pattern
from tests.registry.world import HOUR, TARGET, FakeRegistry, World, manifest, world

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


def lose_all(folder: Path) -> None:
    for file in (folder / "blobs" / "blobs").rglob("*.*"):
        file.unlink()


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
        lose_all(tmp_path)
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


class _Fails:
    """A view of a store that fails when it is asked for bytes."""

    def __init__(self, digest: Digest, size: int, failure: Exception) -> None:
        self.digest, self.size, self._failure = digest, size, failure

    async def available(self, offset: int, span: Span) -> int:
        await trio.lowlevel.checkpoint()
        raise self._failure

    def fileno(self) -> int | None:
        return None

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        raise AssertionError("nothing was available")

    def close(self) -> None:
        pass


def _fails(failure: Exception) -> Callable[[Digest, str, int], BlobView]:
    return lambda digest, location, size: _Fails(digest, size, failure)


async def test_store_that_does_not_answer_is_gone_around(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        monkeypatch.setattr(cache.content, "open", _fails(StoreUnreachable("down")))
        assert (await pull(cache, upstream.digest))[0] == upstream.data
        row = await cache.records.any_blob(upstream.digest)
        assert row is not None
        assert row.generation > 0
        assert len(upstream.answers) == 2


async def test_bytes_that_are_missed_only_when_read_are_fetched_again(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        before = await cache.records.any_blob(upstream.digest)
        with monkeypatch.context() as patch:
            patch.setattr(cache.content, "open", _fails(BlobMissing("gone")))
            await pull_and_keep(cache, upstream.digest)
        after = await cache.records.any_blob(upstream.digest)
        assert before is not None
        assert after is not None
        assert before.generation != after.generation
        assert await pull(cache, upstream.digest) == (upstream.data, "hit")
        assert len(upstream.answers) == 2


async def test_a_stored_blob_that_cannot_be_opened_comes_from_the_upstream(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        with monkeypatch.context() as patch:
            patch.setattr(cache.content, "open", failing)
            assert await pull(cache, upstream.digest) == (upstream.data, "bypass")
        assert (await pull(cache, upstream.digest))[1] == "hit"


async def test_a_stored_blob_that_is_gone_needs_no_room_for_rows(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreFull(errno.ENOSPC, "No space left on device")

    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        lose_all(tmp_path)
        monkeypatch.setattr(cache.proofs, "quarantine", full)
        assert (await pull(cache, upstream.digest))[0] == upstream.data


async def test_a_client_who_leaves_does_not_keep_lost_bytes_counted(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        lose_all(tmp_path)
        real = cache.proofs.quarantine

        async def slow(blob: BlobRow, found: str, reason: str, now: float) -> bool:
            forgotten = await real(blob, found, reason, now)
            await trio.sleep(1)
            return forgotten

        monkeypatch.setattr(cache.proofs, "quarantine", slow)
        with trio.move_on_after(0.5):
            await pull(cache, upstream.digest)
        await trio.sleep(GRACE + 2)  # the fill that was begun is over
        assert cache.space.used == 0


async def test_a_blob_that_is_not_empty_is_never_sent_as_such(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    """There would be no byte to wait for, and so nothing to hold back until it is proven."""
    lying = manifest(b"{}", upstream.data).replace(b'"size":%d' % SIZE, b'"size":0')
    upstream.push("lying", lying)
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "lying")
        with pytest.raises(UpstreamError) as failure:
            await cache.blobs.open(TARGET, upstream.digest)
    assert failure.value.cause is Cause.PROTOCOL


async def test_a_blob_may_go_by_another_algorithm(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    digest = Digest.of(upstream.data, "sha512")
    named = manifest(b"{}", upstream.data).replace(upstream.digest.encode(), digest.encode())
    upstream.push("sha512", named)
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "sha512")
        await pull_and_keep(cache, digest)
        assert await pull(cache, digest) == (upstream.data, "hit")


async def test_an_empty_blob_is_what_its_digest_says(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    upstream.push("empty", manifest(b"{}", b""))
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "empty")
        assert (await pull(cache, Digest.of(b"")))[0] == b""


async def test_a_blob_that_is_open_is_held(tmp_path: Path, upstream: FakeRegistry, clock: MockClock) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        for outcome in ("miss", "hit"):
            view, was = await cache.blobs.open(TARGET, upstream.digest)
            await read(view)
            await trio.sleep(1)
            await cache.recency.write()
            assert (was, cache.recency.holds(upstream.digest)) == (outcome, True)
            view.close()
            assert not cache.recency.holds(upstream.digest)


async def test_asking_for_the_size_is_no_use(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await cache.blobs.locate(TARGET, upstream.digest)
        assert not cache.recency.holds(upstream.digest)


async def test_an_evicted_blob_is_fetched_again(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock
) -> None:
    async with world(tmp_path, upstream, keep=HOUR) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        cache.pass_time(2 * HOUR)
        await cache.eviction.expire()
        assert cache.space.used == 0
        assert [path for path in cache.content.root.rglob("*") if path.is_file()] == []
        assert await pull(cache, upstream.digest) == (upstream.data, "miss")
        assert upstream.calls == ["GET latest"], "its rows had stayed"


async def test_a_second_copy_counts_once(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        await pull_and_keep(cache, upstream.digest)
        nothing = await cache.records.blob(TARGET.repository, Digest.of(b"nothing"))
        found = await cache.blobs.locate(TARGET, upstream.digest)

        async def as_before(*_: object) -> object:
            return replace(found, row=nothing)

        with monkeypatch.context() as patch:
            patch.setattr(cache.blobs, "locate", as_before)
            assert (await pull(cache, upstream.digest))[1] == "miss"
        await trio.sleep(1)
        assert cache.space.used == SIZE


async def test_a_disk_that_cannot_say_what_is_free_stops_no_pull(
    tmp_path: Path, upstream: FakeRegistry, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with world(tmp_path, upstream) as cache:
        await cache.manifests.get(TARGET, "latest")
        monkeypatch.setattr(os, "statvfs", failing)
        assert await pull(cache, upstream.digest) == (upstream.data, "bypass")
