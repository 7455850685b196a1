from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from obstore.store import MemoryStore
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.registry import metrics, orphans
from cacheproxy.registry.orphans import (
    AGAIN,
    EVERY,
    FEW,
    FIRST,
    GRACE,
    PAUSE,
    SHARE,
    Sweep,
    TooMany,
    sweep,
    watch,
)
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.disk import DiskContent, place
from cacheproxy.store.objects import open_objects
from cacheproxy.store.queries import PLACES
from tests.registry.world import TARGET, World, world

NOW = 1_000_000.0
BLOB = b"a layer"
DIGEST = Digest.of(BLOB)


def stored(content: DiskContent, age: float = GRACE + 1) -> str:
    """A file as a fill leaves it before its row is committed."""
    partial = content.partial(DIGEST, len(BLOB))
    partial.write(0, [BLOB])
    location = content.commit(partial).path
    partial.close()
    os.utime(content.root / location, (NOW - age, NOW - age))
    return location


def content_of(cache: World) -> DiskContent:
    assert isinstance(cache.content, DiskContent)
    return cache.content


async def test_a_file_without_a_row_goes(clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        assert await sweep(content_of(cache), cache.records, NOW) == 1
        assert not (cache.content.root / location).exists()


async def test_a_file_that_may_yet_get_its_row_stays(clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache), age=GRACE - 1)
        assert await sweep(content_of(cache), cache.records, NOW) == 0
        assert (cache.content.root / location).exists()


async def test_a_file_with_its_row_stays_and_another_generation_goes(
    clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as cache:
        kept, lost = stored(content_of(cache)), stored(content_of(cache))
        await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
        await cache.records.record_blob(DIGEST, len(BLOB), kept, 1, NOW)
        assert await sweep(content_of(cache), cache.records, NOW) == 1
        assert (cache.content.root / kept).exists()
        assert not (cache.content.root / lost).exists()


async def test_a_file_in_the_trash_is_the_trashs(clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
        await cache.records.record_blob(DIGEST, len(BLOB), location, 1, NOW)
        assert len(await cache.records.evict(await cache.records.evictable(1), NOW + 10)) == 1
        assert await sweep(content_of(cache), cache.records, NOW) == 0
        assert (cache.content.root / location).exists()


async def test_what_is_not_ours_is_left_alone(clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path) as cache:
        folder = cache.content.root / "blobs" / "sha256" / "aa"
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
        (folder.parent / "README").write_text("mine, too")
        os.utime(folder / "notes.txt", (0, 0))
        assert await sweep(content_of(cache), cache.records, NOW) == 0
        assert (folder / "notes.txt").exists()


class Shelf:
    """Files without rows; notes when each listing of them began, and what went when."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.fails = False
        self.listed: list[float] = []
        self.removed: list[float] = []

    def files(self, older_than: float, now: float) -> Iterator[tuple[Digest, str]]:
        self.listed.append(now)
        if self.fails:
            raise OSError("unreadable")
        for number in range(self.count):
            digest = Digest.of(b"%d" % number)
            yield digest, place(digest, 1).path

    def remove(self, location: str) -> bool:
        self.removed.append(trio.from_thread.run_sync(trio.current_time))
        return True


class NoRows:
    async def accounted(self, files: Sequence[tuple[str, str]]) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset()


async def test_the_sweep_waits_until_the_start_is_long_over_and_comes_once_a_day(clock: MockClock) -> None:
    shelf, began = Shelf(), trio.current_time()
    with trio.move_on_after(FIRST + EVERY + 1):
        await watch(shelf, NoRows(), trio.current_time, Sweep())
    first, second = (at - began for at in shelf.listed)
    assert FIRST / 2 <= first <= FIRST
    assert second - first == pytest.approx(EVERY)


async def test_a_sweep_that_fails_ends_no_daemon_and_comes_again(clock: MockClock) -> None:
    shelf = Shelf()
    shelf.fails = True
    with trio.move_on_after(FIRST + EVERY + 1):
        await watch(shelf, NoRows(), trio.current_time, Sweep())
    assert len(shelf.listed) == 2


async def test_others_get_their_turn_between_two_batches(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "FEW", 2 * PLACES)
    shelf = Shelf(2 * PLACES)
    assert await sweep(shelf, NoRows(), NOW) == 2 * PLACES
    assert shelf.removed[PLACES - 1] == shelf.removed[0]
    assert shelf.removed[PLACES] - shelf.removed[PLACES - 1] == pytest.approx(PAUSE)


class SomeRows:
    """Of the files of a Shelf, the first few have one."""

    def __init__(self, count: int) -> None:
        self._places = {place(Digest.of(b"%d" % number), 1).path for number in range(count)}

    async def accounted(self, files: Sequence[tuple[str, str]]) -> set[str]:
        await trio.lowlevel.checkpoint()
        return self._places & {location for _, location in files}


@pytest.mark.parametrize(
    ("files", "rows", "goes"),
    [
        (FEW, 0, FEW),
        (FEW + 1, 0, None),
        (1000, 499, None),
        (1000, round(1000 * SHARE), 500),
    ],
)
async def test_of_many_files_no_more_than_a_share_goes(
    clock: MockClock, files: int, rows: int, goes: int | None
) -> None:
    shelf = Shelf(files)
    if goes is None:
        with pytest.raises(TooMany, match=f"^{files - rows} of {files} stored files have no row: .*fsck"):
            await sweep(shelf, SomeRows(rows), NOW)
    else:
        assert await sweep(shelf, SomeRows(rows), NOW) == goes
    assert len(shelf.removed) == (goes or 0)


async def test_a_brake_is_told_until_a_sweep_goes_through(clock: MockClock) -> None:
    shelf, last = Shelf(FEW + 1), Sweep()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, shelf, NoRows(), trio.current_time, last)
        await trio.sleep(FIRST + 1)
        assert "have no row" in last.stopped
        assert metrics.SWEEP_STOPPED._value.get() == 1
        shelf.count = 0
        await trio.sleep(EVERY)
        assert last.stopped == ""
        assert metrics.SWEEP_STOPPED._value.get() == 0
        nursery.cancel_scope.cancel()


async def test_a_file_whose_row_comes_after_the_first_look_stays(clock: MockClock, tmp_path: Path) -> None:
    """A clock that was set, or a store that dates an object from the start of a long upload."""
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sweep, content_of(cache), cache.records, NOW)
            await trio.sleep(AGAIN / 2)
            await cache.records.record_link(TARGET.repository, "hub", DIGEST, len(BLOB), NOW)
            await cache.records.record_blob(DIGEST, len(BLOB), location, 1, NOW)
        assert (cache.content.root / location).exists()


@pytest.mark.parametrize("call", ["files", "remove"])
async def test_a_store_that_hangs_keeps_no_shutdown_waiting(
    clock: MockClock, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, reached, ended = Shelf(1), trio.Event(), threading.Event()

    def hang(*_: object) -> Iterator[tuple[Digest, str]]:
        trio.from_thread.run_sync(reached.set)
        ended.wait(10)
        return iter(())

    monkeypatch.setattr(shelf, call, (lambda *_: later(hang)) if call == "files" else hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep, shelf, NoRows(), NOW)
        await reached.wait()
        began = time.monotonic()
        nursery.cancel_scope.cancel()
    ended.set()
    assert time.monotonic() - began < 5


def later(find: Callable[[], Iterator[tuple[Digest, str]]]) -> Iterator[tuple[Digest, str]]:
    yield from find()


async def test_a_file_that_cannot_be_removed_keeps_no_other(clock: MockClock) -> None:
    shelf = Shelf(3)
    real = shelf.remove

    def remove(location: str) -> bool:
        if not shelf.removed:
            shelf.removed.append(-1.0)
            raise PermissionError("not this one")
        return real(location)

    shelf.remove = remove  # type: ignore[method-assign]
    assert await sweep(shelf, NoRows(), NOW) == 2


async def test_a_file_that_was_evicted_since_it_was_listed_is_no_news(
    clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as cache:
        location = stored(content_of(cache))

        def listed(older_than: float, now: float) -> Iterator[tuple[Digest, str]]:
            yield DIGEST, location
            yield DIGEST, place(DIGEST, 7).path

        content = content_of(cache)
        content.files = listed  # type: ignore[method-assign]
        assert await sweep(content, cache.records, NOW) == 1


async def test_a_file_counts_from_when_it_became_one_not_from_its_last_byte(
    clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as cache:
        content = content_of(cache)
        partial = content.partial(DIGEST, len(BLOB))
        partial.write(0, [BLOB])
        os.utime(partial.fileno(), (0, 0))
        content.commit(partial)
        partial.close()
        assert list(content.files(GRACE, (content.root / "blobs").stat().st_mtime + 60)) == []


async def test_an_object_without_a_row_goes_as_a_file_does(clock: MockClock, tmp_path: Path) -> None:
    bucket = Bucket(MemoryStore(), "memory://test")
    async with world(tmp_path) as cache, open_objects(bucket, tmp_path / "arriving") as content:
        places = []
        for _ in range(2):
            partial = content.partial(DIGEST, len(BLOB))
            partial.write(0, [BLOB])
            places.append(content.commit(partial).path)
            partial.close()
        await cache.records.record_blob(DIGEST, len(BLOB), places[0], 1, NOW)
        others = ["notes.txt", "blobs/sha256/aa/notes.txt", "blobs-of-others/x"]
        for key in others:
            bucket.put(key, 4, iter([b"mine"]))
        now = time.time()
        assert await sweep(content, cache.records, now) == 0
        assert await sweep(content, cache.records, now + GRACE + 60) == 1
        assert [bucket.size(key) for key in [*places, *others]] == [len(BLOB), None, 4, 4, 4]
