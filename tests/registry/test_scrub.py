from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.routing import Routes, UpstreamRoute
from cacheproxy.registry import scrub as scrubbing
from cacheproxy.registry.scrub import CLAIM, IN_A_ROW, LOOK_EVERY, Scrub, ScrubRules, refetching
from cacheproxy.store.errors import BlobDamaged, StoreUnreachable
from cacheproxy.store.proofs import Left
from cacheproxy.store.rows import BlobRow
from tests.registry.world import DAY, TARGET, World, world

RULES = ScrubRules(30 * DAY, math.inf)


@dataclass
class Desk:
    cache: World
    scrub: Scrub
    nursery: trio.Nursery
    refetched: list[tuple[str, Digest]] = field(default_factory=list)

    async def store(self, data: bytes, repository: str = TARGET.repository) -> BlobRow:
        cache, digest = self.cache, Digest.of(data)
        partial = cache.content.partial(digest, len(data))
        partial.write(0, [data])
        location, generation = cache.content.commit(partial)
        partial.close()
        await cache.records.record_link(repository, "hub", digest, len(data), cache.now)
        await cache.records.record_blob(digest, len(data), location, generation, cache.now)
        cache.space.store(digest, len(data))
        cache.pass_time(1)
        return BlobRow(digest, len(data), generation, location)

    def rot(self, blob: BlobRow) -> None:
        """One bit of it."""
        file = self.cache.content.root / blob.location
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    async def here(self, blob: BlobRow) -> bool:
        row = await self.cache.records.any_blob(blob.digest)
        return row is not None and row.generation == blob.generation

    async def done(self) -> scrubbing.Progress:
        with trio.fail_after(5 * LOOK_EVERY):
            while True:
                progress = await self.scrub.progress()
                if (not progress.running and not progress.asked.blobs) or progress.stopped:
                    await trio.sleep(0.1)
                    return await self.scrub.progress()
                await trio.sleep(0.1)


@asynccontextmanager
async def desk(folder: Path, rules: ScrubRules = RULES, *, shared: bool = False) -> AsyncIterator[Desk]:
    """With a scrub that runs."""
    async with world(folder) as cache, trio.open_nursery() as nursery:

        async def refetch(repository: str, digest: Digest) -> str:
            await trio.lowlevel.checkpoint()
            built.refetched.append((repository, digest))
            return ""

        def clock() -> float:
            return cache.now

        scrub = Scrub(cache.proofs, cache.content, cache.quarantine, rules, clock, shared=shared)
        scrub.refetch = refetch
        built = Desk(cache, scrub, nursery)
        yield built
        nursery.cancel_scope.cancel()


async def test_what_rotted_is_quarantined_and_fetched_again(tmp_path: Path, clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        rotten, sound = await d.store(b"rotten"), await d.store(b"sound")
        d.rot(rotten)
        await d.scrub.ask(None)
        d.nursery.start_soon(d.scrub.run)
        progress = await d.done()
        assert (progress.checked, progress.damaged) == (Left(1, 5), 1)
        assert not await d.here(rotten)
        assert await d.here(sound)
        assert d.refetched == [(TARGET.repository, rotten.digest)]
        (damage,) = await d.cache.quarantine.damage()
        assert (damage.found, damage.digest) == ("mismatch", rotten.digest)


async def test_only_what_is_due_is_read(tmp_path: Path, clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        await d.store(b"old")
        d.cache.pass_time(30 * DAY)
        await d.store(b"new")
        d.nursery.start_soon(d.scrub.run)
        assert (await d.done()).checked == Left(1, 3)
        d.cache.pass_time(30 * DAY + 1)
        await trio.sleep(LOOK_EVERY + 1)
        assert (await d.done()).checked == Left(3, 9)


async def test_switched_off_it_reads_what_somebody_asks_for(tmp_path: Path, clock: MockClock) -> None:
    async with desk(tmp_path, ScrubRules(math.inf, math.inf)) as d:
        wanted = await d.store(b"wanted")
        await d.store(b"unwanted")
        d.cache.pass_time(999 * DAY)
        d.nursery.start_soon(d.scrub.run)
        assert (await d.done()).checked == Left(0, 0)
        progress = await d.scrub.ask([wanted.digest])
        assert progress.asked == Left(1, 6)
        assert (await d.done()).checked == Left(1, 6)


async def test_its_pace_is_kept(tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "STEP", 10)
    async with desk(tmp_path, ScrubRules(30 * DAY, 100.0)) as d:
        await d.store(bytes(1000))
        await d.scrub.ask(None)
        began = trio.current_time()
        d.nursery.start_soon(d.scrub.run)
        await d.done()
        assert trio.current_time() - began == pytest.approx(10.0, abs=0.5)


async def test_it_goes_on_where_a_kill_ended_it(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "BATCH", 1)
    async with desk(tmp_path, ScrubRules(30 * DAY, 1.0)) as d:
        for size in (10, 20, 30):
            await d.store(bytes(size))
        await d.scrub.ask(None)
        with trio.move_on_after(35):
            await d.scrub.run()
        assert 0 < d.scrub._checked.blobs < 3
        again = Scrub(d.cache.proofs, d.cache.content, d.cache.quarantine, RULES, lambda: 2e6)
        d.nursery.start_soon(again.run)
        await trio.sleep(1)
        assert again._checked.blobs == 3 - d.scrub._checked.blobs


async def test_nodes_share_the_work(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "BATCH", 1)
    async with desk(tmp_path, ScrubRules(30 * DAY, 10.0), shared=True) as d:
        for number in range(10):
            await d.store(bytes([number]) * 100)
        c, one = d.cache, d.scrub
        other = Scrub(c.proofs, c.content, c.quarantine, one.rules, lambda: c.now, shared=True)
        await one.ask(None)
        for scrub in (one, other):
            d.nursery.start_soon(scrub.run)
        await trio.sleep(60)
        assert one._checked.blobs + other._checked.blobs == 10
        assert {one._checked.blobs, other._checked.blobs} == {5}


async def test_the_claim_of_a_dead_node_runs_out(tmp_path: Path, clock: MockClock) -> None:
    async with desk(tmp_path, shared=True) as d:
        blob = await d.store(b"claimed")
        await d.cache.proofs.want([blob.digest])
        await d.cache.proofs.claim(1.0, 0.1 + d.cache.now, lambda size: d.cache.now + CLAIM, 1)
        d.nursery.start_soon(d.scrub.run)
        await trio.sleep(1)
        assert d.scrub._checked.blobs == 0
        d.cache.pass_time(CLAIM + 1)
        await trio.sleep(LOOK_EVERY + 1)
        assert d.scrub._checked.blobs == 1


async def test_a_store_that_does_not_answer_is_asked_again_later(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise StoreUnreachable("the bucket is away")

    async with desk(tmp_path, shared=True) as d:
        blob = await d.store(b"far")
        await d.scrub.ask(None)
        with monkeypatch.context() as patch:
            patch.setattr(d.cache.content, "read_cold", away)
            d.nursery.start_soon(d.scrub.run)
            assert (await d.done()).stopped == "the bucket is away"
        assert await d.here(blob)
        await trio.sleep(LOOK_EVERY + 1)
        progress = await d.scrub.progress()
        assert (progress.checked, progress.stopped) == (Left(1, 3), "")


async def test_a_disk_that_cannot_be_read_at_all_condemns_few_blobs(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(location: str, *_: object) -> bytes:
        raise BlobDamaged(f"{location} cannot be read", "unreadable")

    async with desk(tmp_path) as d:
        for number in range(3 * IN_A_ROW):
            await d.store(bytes([number]))
        await d.scrub.ask(None)
        monkeypatch.setattr(d.cache.content, "read_cold", dead)
        d.nursery.start_soon(d.scrub.run)
        progress = await d.done()
        assert progress.damaged == IN_A_ROW - 1
        assert "in a row are not there or cannot be read" in progress.stopped


async def test_a_disk_that_is_not_mounted_condemns_few_blobs(tmp_path: Path, clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        for number in range(3 * IN_A_ROW):
            await d.store(bytes([number]))
        await d.scrub.ask(None)
        (d.cache.content.root / "blobs").rename(tmp_path / "elsewhere")
        d.nursery.start_soon(d.scrub.run)
        progress = await d.done()
        assert progress.damaged == IN_A_ROW - 1
        assert "is its disk mounted?" in progress.stopped


async def test_what_nobody_but_its_pusher_has_is_not_said_to_come_from_an_upstream(
    tmp_path: Path, clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with desk(tmp_path) as d:
        blob = await d.store(b"pushed")
        await d.cache.proofs._database.write(lambda tx: tx.run("UPDATE repository SET kind = 'hosted'"))
        d.rot(blob)
        await d.scrub.ask(None)
        d.nursery.start_soon(d.scrub.run)
        assert (await d.done()).damaged == 1
        said = capsys.readouterr().out
        assert "whoever pushed it has to do so again" in said
        assert "fetched anew" not in said


async def test_proofs_of_a_slow_database_are_kept(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as d:
        await d.store(b"sound")
        real = d.cache.proofs.prove

        async def slowly(blobs: Sequence[BlobRow], now: float) -> None:
            await trio.sleep(5)
            await real(blobs, now)

        monkeypatch.setattr(d.cache.proofs, "prove", slowly)
        await d.scrub.ask(None)
        d.nursery.start_soon(d.scrub.run)
        await trio.sleep(60)
        assert (await d.scrub.progress()).checked == Left(1, 5)


async def test_a_blob_that_was_evicted_meanwhile_is_no_news(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as d:
        blob = await d.store(b"going")
        real = d.cache.content.read_cold

        def evicted(*arguments: object) -> object:
            trio.from_thread.run(d.cache.records.forget_bytes, blob.digest, blob.generation)
            d.cache.content.remove(blob.location)
            return real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(d.cache.content, "read_cold", evicted)
        await d.scrub.ask(None)
        d.nursery.start_soon(d.scrub.run)
        assert (await d.done()).damaged == 0
        assert await d.cache.quarantine.damage() == []


async def test_the_next_repository_is_asked_when_one_does_not_give_it(
    tmp_path: Path, clock: MockClock
) -> None:
    async with desk(tmp_path) as d:
        blob = await d.store(b"shared", "hub/a")
        await d.cache.records.record_link("hub/b", "hub", blob.digest, blob.size, d.cache.now)
        asked = list[str]()

        async def refetch(repository: str, digest: Digest) -> str:
            await trio.lowlevel.checkpoint()
            asked.append(repository)
            return "the upstream is down"

        d.scrub.refetch = refetch
        d.rot(blob)
        await d.scrub.ask(None)
        d.nursery.start_soon(d.scrub.run)
        await d.done()
        assert asked == ["hub/a", "hub/b"]


async def test_an_empty_blob_is_proven(tmp_path: Path, clock: MockClock) -> None:
    async with desk(tmp_path) as d:
        await d.store(b"")
        await d.scrub.ask(None)
        d.nursery.start_soon(d.scrub.run)
        assert (await d.done()).checked == Left(1, 0)


async def test_rows_that_cannot_be_written_stop_it_for_a_while(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with desk(tmp_path) as d:
        await d.store(b"blob")
        await d.scrub.ask(None)
        monkeypatch.setattr(d.cache.proofs, "prove", full)
        d.nursery.start_soon(d.scrub.run)
        assert "No space" in (await d.done()).stopped


async def test_a_read_that_hangs_keeps_no_shutdown_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()

    def hang(*_: object) -> bytes:
        begun.set()
        released.wait(20)
        return b"blob"

    async with desk(tmp_path) as d:
        blob = await d.store(b"blob")
        await d.scrub.ask(None)
        monkeypatch.setattr(d.cache.content, "read_cold", hang)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.scrub.run)
            await trio.to_thread.run_sync(begun.wait)
            ended = time.monotonic()
            nursery.cancel_scope.cancel()
        assert time.monotonic() - ended < 1
        released.set()
        assert (await d.cache.proofs.claim(1.0, d.cache.now, lambda _: 0.0, 1)) == [blob], "it was released"


@dataclass
class Prefetched:
    asked: list[str] = field(default_factory=list)

    async def again(self, target: object, digest: Digest) -> str:
        await trio.lowlevel.checkpoint()
        self.asked.append(getattr(target, "remote", ""))
        return ""


async def test_an_upstream_that_is_not_declared_any_more_gives_nothing() -> None:
    routes = Routes(
        [UpstreamRoute("docker.io", "hub", (), library=True, default=False)], own_hosts=frozenset()
    )
    prefetched = Prefetched()
    refetch = refetching(routes, prefetched)  # type: ignore[arg-type]
    assert await refetch("hub/library/a", Digest.of(b"")) == ""
    assert prefetched.asked == ["library/a"]
    assert await refetch("gone.test/a", Digest.of(b"")) != ""
