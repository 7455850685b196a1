from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cacheproxy.core.blob import BlobBroken
from cacheproxy.core.digest import Digest
from cacheproxy.store import journal
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.partial import Partial
from cacheproxy.store.vectored import IOV_MAX
from tests.store.conftest import open_descriptors

SIZE = 1_000
DIGEST = Digest.of(b"some blob")


@pytest.fixture
def content(tmp_path: Path) -> DiskContent:
    return DiskContent(tmp_path)


@pytest.fixture
def partial(content: DiskContent) -> Iterator[Partial]:
    partial = content.partial(DIGEST, SIZE)
    yield partial
    partial.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "partial" / f"sha256-{DIGEST.hex}.part"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "partial" / f"sha256-{DIGEST.hex}.journal"


def left(content: DiskContent, *runs: tuple[int, int]) -> None:
    """A partial file with these runs journaled, closed as by the end of the process."""
    partial = content.partial(DIGEST, SIZE)
    for start, stop in runs:
        partial.write(start, [bytes([start % 256]) * (stop - start)])
        partial.checkpoint([(start, stop)])
    partial.close()


def found(content: DiskContent) -> list[tuple[int, int]]:
    """What the next start goes on from; the file must be usable either way."""
    partial = content.partial(DIGEST, SIZE)
    runs = list(partial.intervals)
    partial.write(SIZE - 1, [b"!"])
    partial.checkpoint([(SIZE - 1, SIZE)])
    partial.close()
    again = content.partial(DIGEST, SIZE)
    assert again.intervals.contains(SIZE - 1, SIZE)
    assert again.read(SIZE - 1, 1) == b"!"
    again.close()
    return runs


# Writing and reading.


def test_new_partial_is_sparse_and_of_full_size(content: DiskContent, data: Path) -> None:
    partial = content.partial(DIGEST, 1 << 30)
    assert data.stat().st_size == 1 << 30
    assert data.stat().st_blocks * 512 < 1 << 20
    partial.close()


def test_chunks_are_written_one_behind_the_other(partial: Partial) -> None:
    partial.write(10, [b"abc", memoryview(b"xdefx")[1:4], b"", b"g"])
    assert partial.read(10, 100)[:8] == b"abcdefg\0"


def test_more_chunks_than_one_call_takes_are_all_written(partial: Partial) -> None:
    count = IOV_MAX - 100
    partial.write(0, [b"x"] * count)
    assert partial.read(0, SIZE).count(b"x") == count
    big = [bytes([n % 251]) for n in range(SIZE)]
    partial.write(0, big)
    assert partial.read(0, SIZE) == b"".join(big)


def test_short_writes_are_carried_on(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def short(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return real(fd, b"".join(buffers)[:3], offset)

    monkeypatch.setattr(os, "pwritev", short)
    partial.write(1, [b"ab", b"cdefg", b"h"])
    assert partial.read(1, 8) == b"abcdefgh"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_failed_write_is_the_systems_own_error(
    partial: Partial, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwritev", fail)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        partial.write(0, [b"abc"])
    assert caught.value.errno == code
    assert not isinstance(caught.value, StoreSuspect)


def test_bytes_past_the_end_are_refused(partial: Partial, data: Path) -> None:
    with pytest.raises(ValueError, match="past the end"):
        partial.write(SIZE - 2, [b"ab", b"c"])
    assert data.stat().st_size == SIZE


def test_reading_where_the_file_was_cut_short_is_broken(partial: Partial, data: Path) -> None:
    os.truncate(data, 10)
    assert len(partial.read(5, 100)) == 5
    with pytest.raises(BlobBroken):
        partial.read(10, 1)


# Checkpoints.


def test_checkpoint_syncs_the_data_before_it_is_journaled(
    partial: Partial, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    events: list[tuple[str, int]] = []
    real = os.fdatasync

    def record(fd: int) -> None:
        events.append(("data" if fd == partial.fileno() else "journal", log.stat().st_size))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", record)
    before = log.stat().st_size
    partial.write(0, [b"abc"])
    partial.checkpoint([(0, 3)])
    line = len(journal.lines([(0, 3)], 0)[0])
    assert events == [("data", before), ("journal", before + line)]


def test_first_checkpoint_makes_the_names_last(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", record)
    partial.checkpoint([(0, 3)])
    assert synced == ["partial"]
    partial.checkpoint([(0, 6)])
    assert synced == ["partial"]


def test_checkpoint_journals_only_what_is_new(partial: Partial, log: Path) -> None:
    partial.checkpoint([(0, 10), (20, 30)])
    size = log.stat().st_size
    partial.checkpoint([(0, 10), (20, 30)])
    assert log.stat().st_size == size
    partial.checkpoint([(0, 30)])
    replay = journal.replay(log.read_bytes(), DIGEST, SIZE)
    assert replay is not None
    assert list(replay.intervals) == [(0, 30)]
    assert log.read_text().splitlines()[-1].endswith(" 10 20")


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS])
def test_failed_sync_is_suspect_and_never_tried_again(
    partial: Partial, monkeypatch: pytest.MonkeyPatch, log: Path, code: int
) -> None:
    calls = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(code, os.strerror(code))

    size = log.stat().st_size
    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(2):
        with pytest.raises(StoreSuspect):
            partial.checkpoint([(0, 10)])
    monkeypatch.undo()
    with pytest.raises(StoreSuspect):  # the kernel would say "fine" now
        partial.checkpoint([(0, 10)])
    assert len(calls) == 1
    assert log.stat().st_size == size
    assert list(partial.intervals) == []


def test_full_disk_at_a_checkpoint_is_no_suspicion(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space") as caught:
        partial.checkpoint([(0, 10)])
    assert not isinstance(caught.value, StoreSuspect)
    assert list(partial.intervals) == []


# What a crash leaves.


def test_runs_that_were_checkpointed_are_found(content: DiskContent) -> None:
    left(content, (0, 10), (50, 60), (10, 20))
    assert found(content) == [(0, 20), (50, 60)]


def test_torn_last_line_is_ignored(content: DiskContent, log: Path) -> None:
    left(content, (0, 10), (50, 60))
    os.truncate(log, log.stat().st_size - 4)
    assert found(content) == [(0, 10)]


def test_garbage_behind_the_last_line_is_ignored(content: DiskContent, log: Path) -> None:
    left(content, (0, 10))
    log.write_bytes(log.read_bytes() + b"\0" * 37)
    assert found(content) == [(0, 10)]


def test_data_file_shorter_than_the_blob_starts_empty(content: DiskContent, data: Path) -> None:
    left(content, (0, 10))
    os.truncate(data, 15)
    assert found(content) == []


def test_data_file_longer_than_the_blob_starts_empty(content: DiskContent, data: Path) -> None:
    left(content, (0, 10))
    os.truncate(data, SIZE + 1)
    assert found(content) == []


def test_missing_data_file_starts_empty(content: DiskContent, data: Path) -> None:
    left(content, (0, 10))
    data.unlink()
    assert found(content) == []


def test_missing_journal_starts_empty(content: DiskContent, log: Path) -> None:
    left(content, (0, 10))
    log.unlink()
    assert found(content) == []


@pytest.mark.parametrize("text", [b"", b"\n", b"rubbish\n", b"cbor\x00\xff"])
def test_journal_that_is_none_starts_empty(content: DiskContent, log: Path, text: bytes) -> None:
    left(content, (0, 10))
    log.write_bytes(text)
    assert found(content) == []


def test_journal_of_another_size_starts_empty(content: DiskContent, log: Path) -> None:
    left(content, (0, 10))
    first, checksum = journal.opening(DIGEST, SIZE - 1)
    log.write_bytes(first + journal.lines([(0, 10)], checksum)[0])
    assert found(content) == []


def test_journal_too_long_to_be_ours_starts_empty(content: DiskContent, log: Path) -> None:
    left(content, (0, 10))
    os.truncate(log, journal.LIMIT + 1)
    assert found(content) == []


@pytest.mark.parametrize("which", ["data", "log"])
def test_symbolic_link_is_not_followed_and_starts_empty(
    content: DiskContent, tmp_path: Path, request: pytest.FixtureRequest, which: str
) -> None:
    left(content, (0, 10))
    planted: Path = request.getfixturevalue(which)
    elsewhere = tmp_path / "elsewhere"
    planted.rename(elsewhere)
    before = elsewhere.read_bytes()
    planted.symlink_to(elsewhere)
    assert found(content) == []
    assert elsewhere.read_bytes() == before


def test_pipe_in_place_of_the_file_starts_empty(content: DiskContent, data: Path) -> None:
    left(content, (0, 10))
    data.unlink()
    os.mkfifo(data)
    assert found(content) == []


# Starting afresh.


def test_old_journal_is_durably_gone_before_a_new_file_is_made(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch, data: Path, log: Path
) -> None:
    left(content, (0, 10))
    os.truncate(data, 5)
    seen: list[tuple[bool, int]] = []
    real = os.fsync

    def record(fd: int) -> None:
        seen.append((log.exists(), data.stat().st_size))
        real(fd)

    monkeypatch.setattr(os, "fsync", record)
    content.partial(DIGEST, SIZE).close()
    assert seen == [(False, 5)]


def test_full_disk_at_the_start_leaves_nothing_behind(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch, data: Path, log: Path
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    descriptors = open_descriptors()
    with pytest.raises(OSError, match="No space"):
        content.partial(DIGEST, SIZE)
    assert open_descriptors() == descriptors
    assert not data.exists()
    assert not log.exists()
    monkeypatch.undo()
    content.partial(DIGEST, SIZE).close()


def test_second_opening_of_a_digest_is_refused(content: DiskContent, partial: Partial) -> None:
    with pytest.raises(ValueError, match="is open"):
        content.partial(DIGEST, SIZE)


def test_file_that_another_process_writes_is_left_alone(
    content: DiskContent, tmp_path: Path, partial: Partial, data: Path, log: Path
) -> None:
    partial.write(0, [b"abc"])
    partial.checkpoint([(0, 3)])
    log.unlink()  # even where the other's journal is not there yet
    other = DiskContent(tmp_path)
    with pytest.raises(BlockingIOError):
        other.partial(DIGEST, SIZE)
    assert data.read_bytes()[:3] == b"abc"


def test_close_twice_closes_no_other_descriptor(content: DiskContent) -> None:
    partial = content.partial(DIGEST, SIZE)
    partial.close()
    reader, writer = os.pipe()
    partial.close()
    os.close(reader)
    os.close(writer)


def test_a_descriptor_that_cannot_be_closed_hinders_nobody(content: DiskContent) -> None:
    """Network file systems tell of earlier failures then; what has to last was synced before."""
    partial = content.partial(DIGEST, SIZE)
    before = open_descriptors()
    os.close(partial.fileno())
    partial.close()
    assert open_descriptors() == before - 2
    assert content.partial(DIGEST, SIZE).intervals.total == 0


def test_discard_removes_both_files(partial: Partial, data: Path, log: Path) -> None:
    partial.write(0, [b"abc"])
    partial.discard()
    assert not data.exists()
    assert not log.exists()
    assert partial.read(0, 3) == b"abc"


def test_left_file_is_gone_on_from_while_it_is_still_read(content: DiskContent) -> None:
    first = content.partial(DIGEST, SIZE)
    first.write(0, [b"abc"])
    first.leave([(0, 3)])
    second = content.partial(DIGEST, SIZE)
    assert list(second.intervals) == [(0, 3)]
    assert first.read(0, 3) == b"abc"
    first.close()
    with pytest.raises(ValueError, match="open"):  # the first one's end took nothing from the second
        content.partial(DIGEST, SIZE)
    second.close()


def test_etags_are_journaled_with_the_bytes_and_each_once(content: DiskContent, log: Path) -> None:
    partial = content.partial(DIGEST, SIZE)
    partial.etags["https://hub.example/ a/b"] = '"1"'
    partial.checkpoint([])
    assert b"etag" not in log.read_bytes()
    partial.checkpoint([(0, 10)])
    partial.checkpoint([(0, 20)])
    partial.close()
    assert log.read_bytes().count(b"etag") == 1
    again = content.partial(DIGEST, SIZE)
    assert again.etags == {"https://hub.example/ a/b": '"1"'}
    again.close()


def test_damaged_etag_starts_empty(content: DiskContent, log: Path) -> None:
    partial = content.partial(DIGEST, SIZE)
    partial.etags["https://hub.example/ a/b"] = '"1"'
    partial.checkpoint([(0, 10)])
    partial.close()
    log.write_bytes(log.read_bytes().replace(b'"1"', b'"2"'))
    again = content.partial(DIGEST, SIZE)
    assert (again.etags, list(again.intervals)) == ({}, [])
    again.close()
