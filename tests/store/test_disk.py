from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.disk import DiskContent, Location, Unfinished
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreSuspect
from tests.store.conftest import open_descriptors

DATA = b"some bytes of a layer"
DIGEST = Digest.of(DATA)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "content"


@pytest.fixture
def content(root: Path) -> DiskContent:
    numbers = iter(range(1, 1000))
    return DiskContent(root, lambda: next(numbers))


def stored(content: DiskContent, data: bytes = DATA) -> Location:
    partial = content.partial(Digest.of(data), len(data))
    try:
        partial.write(0, [data])
        return content.commit(partial)
    finally:
        partial.close()


# Names and rights.


def test_location_names_digest_and_generation(content: DiskContent, root: Path) -> None:
    location = stored(content)
    assert location == (f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.1", 1)
    assert (root / location.path).read_bytes() == DATA


def test_folders_and_files_are_private(content: DiskContent, root: Path) -> None:
    stored(content)
    unfinished = content.partial(Digest.of(b"unfinished"), 10)
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    unfinished.close()


def test_commit_leaves_no_partial_file(content: DiskContent, root: Path) -> None:
    stored(content)
    assert list((root / "partial").iterdir()) == []


def test_default_generations_are_positive_and_fit_a_database_integer(root: Path) -> None:
    content = DiskContent(root)
    assert all(0 < stored(content).generation < 1 << 63 for _ in range(3))


def test_file_without_a_row_is_reached_by_no_name_but_its_own(content: DiskContent) -> None:
    """An orphan of a crash between rename and record: only a row names a generation."""
    orphan = stored(content)
    for generation in (0, 2, 10, 11):
        with pytest.raises(BlobMissing):
            content.open(DIGEST, f"{orphan.path.rpartition('.')[0]}.{generation}", len(DATA))


# The durable order.


def recorded(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """The calls that make things last, with what they were about."""
    calls: list[str] = []

    def spy(name: str, about: Callable[..., object]) -> None:
        real = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            calls.append(f"{name} {about(*args)}")
            return real(*args, **options)

        monkeypatch.setattr(os, name, call)

    def path(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(root))

    spy("fdatasync", path)
    spy("fsync", path)
    spy("mkdir", lambda folder, *_: Path(folder).relative_to(root))
    spy("rename", lambda _, target: Path(target).relative_to(root))
    return calls


def test_commit_syncs_renames_and_syncs_the_folders(
    content: DiskContent, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(monkeypatch, root)
    location = stored(content)
    folder = f"blobs/sha256/{DIGEST.hex[:2]}"
    assert calls == [
        "mkdir blobs/sha256",
        "fsync blobs",
        f"mkdir {folder}",
        "fsync blobs/sha256",
        f"fdatasync partial/sha256-{DIGEST.hex}.part",
        f"rename {location.path}",
        f"fsync {folder}",
    ]


def test_commit_into_a_known_folder_syncs_only_it(
    content: DiskContent, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(content)
    calls = recorded(monkeypatch, root)
    location = stored(content)
    assert calls == [
        f"fdatasync partial/sha256-{DIGEST.hex}.part",
        f"rename {location.path}",
        f"fsync blobs/sha256/{DIGEST.hex[:2]}",
    ]


def test_folder_that_another_process_made_is_synced_once(
    content: DiskContent, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(content)
    after_restart = DiskContent(root)
    calls = recorded(monkeypatch, root)
    stored(after_restart)
    assert "fsync blobs" in calls
    assert "fsync blobs/sha256" in calls


def test_journal_goes_last(content: DiskContent, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = root / "partial" / f"sha256-{DIGEST.hex}.journal"
    seen = []
    real = os.fsync

    def record(fd: int) -> None:
        seen.append(journal.exists())
        real(fd)

    monkeypatch.setattr(os, "fsync", record)
    stored(content)
    assert seen
    assert all(seen)
    assert not journal.exists()


@pytest.mark.parametrize("call", ["fdatasync", "rename", "fsync"])
def test_each_failing_step_makes_the_store_suspect(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    stored(content)  # its folders are there

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    partial = content.partial(DIGEST, len(DATA))
    partial.write(0, [DATA])
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreSuspect, match="Input/output"):
        content.commit(partial)
    monkeypatch.undo()
    with pytest.raises(StoreSuspect):  # not even when the disk answers again
        content.commit(partial)
    partial.close()


def test_want_of_space_at_the_commit_is_no_suspicion(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    partial = content.partial(DIGEST, len(DATA))
    partial.write(0, [DATA])
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space") as caught:
        content.commit(partial)
    assert not isinstance(caught.value, StoreSuspect)
    partial.close()


# Opening.


def test_symbolic_link_in_place_of_a_blob_is_missing(content: DiskContent, root: Path) -> None:
    location = stored(content)
    (root / location.path).rename(root / "elsewhere")
    (root / location.path).symlink_to(root / "elsewhere")
    with pytest.raises(BlobMissing):
        content.open(DIGEST, location.path, len(DATA))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_missing(content: DiskContent, root: Path, make: Callable[[Path], None]) -> None:
    location = stored(content)
    (root / location.path).unlink()
    make(root / location.path)
    with pytest.raises(BlobMissing):
        content.open(DIGEST, location.path, len(DATA))


def test_want_of_descriptors_does_not_say_missing(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = stored(content)

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Too many"):
        content.open(DIGEST, location.path, len(DATA))


def test_refused_file_leaves_no_descriptor(content: DiskContent) -> None:
    location = stored(content)
    before = open_descriptors()
    with pytest.raises(BlobMissing):
        content.open(DIGEST, location.path, len(DATA) + 1)
    assert open_descriptors() == before


async def test_file_cut_short_under_a_view_is_broken(content: DiskContent, root: Path) -> None:
    location = stored(content)
    view = content.open(DIGEST, location.path, len(DATA))
    os.truncate(root / location.path, 5)
    with pytest.raises(BlobDamaged):
        await view.available(0, Span(0, len(DATA), False))
    with pytest.raises(BlobBroken):
        await view.read(5, 1)
    view.close()


async def test_closed_view_is_closed_once_and_for_all(content: DiskContent) -> None:
    view = content.open(DIGEST, stored(content).path, len(DATA))
    view.close()
    reader, writer = os.pipe()  # one of them has the number now
    view.close()
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    assert view.fileno() is None
    with pytest.raises(BlobBroken):
        await view.read(0, 1)
    with pytest.raises(BlobBroken):
        await view.available(0, Span(0, 1, True))
    os.close(reader)
    os.close(writer)


# Partial files, seen from outside.


def test_partials_says_what_each_takes_of_the_disk(content: DiskContent) -> None:
    partial = content.partial(DIGEST, 1 << 30)
    partial.write(0, [b"x" * 100_000])
    partial.checkpoint([(0, 100_000)])
    (unfinished,) = content.partials()
    assert isinstance(unfinished, Unfinished)
    assert unfinished.digest == DIGEST
    assert 100_000 <= unfinished.bytes < 1_000_000
    assert unfinished.mtime == pytest.approx(os.fstat(partial.fileno()).st_mtime, abs=5)
    partial.close()


def test_strange_files_among_the_partials_are_left_alone(content: DiskContent, root: Path) -> None:
    for name in ("README", "sha256-abc.part", ".journal", f"md5-{DIGEST.hex}.part", "lost+found.journal"):
        (root / "partial" / name).write_text("mine")
    assert list(content.partials()) == []
    assert content.reap(0, now=1e12) == []
    assert len(list((root / "partial").iterdir())) == 5


def test_reap_removes_what_nobody_touched(content: DiskContent, root: Path) -> None:
    old, young = Digest.of(b"old"), Digest.of(b"young")
    for digest, mtime in ((old, 1_000), (young, 1_900)):
        content.partial(digest, 10).close()
        for path in (root / "partial").glob(f"*{digest.hex}*"):
            os.utime(path, (mtime, mtime))
    assert content.reap(older_than=500, now=2_000) == [old]
    assert [part.digest for part in content.partials()] == [young]


def test_reap_takes_a_journal_that_lost_its_file(content: DiskContent, root: Path) -> None:
    content.partial(DIGEST, 10).close()
    (root / "partial" / f"sha256-{DIGEST.hex}.part").unlink()
    assert content.reap(older_than=1, now=1e12) == [DIGEST]
    assert list((root / "partial").iterdir()) == []


def test_reap_leaves_what_is_taken_into_use_meanwhile(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def found() -> Iterator[Unfinished]:
        yield Unfinished(DIGEST, 4096, 0.0)
        taken.append(content.partial(DIGEST, len(DATA)))

    monkeypatch.setattr(content, "partials", found)
    assert content.reap(older_than=1, now=1e12) == []
    taken[0].write(0, [DATA])
    content.commit(taken[0])
    taken[0].close()


def test_reap_leaves_what_is_in_use(content: DiskContent) -> None:
    partial = content.partial(DIGEST, 10)
    assert content.reap(older_than=1, now=1e12) == []
    partial.close()
    assert content.reap(older_than=1, now=1e12) == [DIGEST]


async def test_open_view_outlives_the_removal(content: DiskContent) -> None:
    location = stored(content)
    view = content.open(DIGEST, location.path, len(DATA))
    content.remove(location.path)
    await view.available(0, Span(0, len(DATA), False))
    assert await view.read(0, len(DATA)) == DATA
    view.close()


def test_what_is_set_aside_is_no_blob_and_can_be_removed(content: DiskContent, root: Path) -> None:
    location = stored(content).path
    for _ in range(2):
        content.set_aside(location)
    assert not (root / location).exists()
    (kept,) = (root / "quarantine").iterdir()
    assert kept.read_bytes() == DATA
    assert content.remove(location)
    assert not content.remove(location)
    assert not kept.exists()


def test_what_is_not_there_is_not_set_aside(content: DiskContent, root: Path) -> None:
    content.set_aside(stored(content).path.replace("blobs/", "x/", 1))
    location = stored(content).path
    content.remove(location)
    content.set_aside(location)
    assert list((root / "quarantine").iterdir()) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODATA, errno.EBADMSG, errno.EUCLEAN])
def test_bytes_that_cannot_be_read_are_damaged(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def failing(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    location = stored(content).path
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        with pytest.raises(BlobDamaged) as damage:
            content.read_cold(location, len(DATA), 0, 5)
        assert damage.value.found == "unreadable"
        patch.setattr(os, "open", failing)
        with pytest.raises(BlobDamaged):
            content.open(DIGEST, location, len(DATA))
    assert open_descriptors() == before


def test_want_of_descriptors_is_no_damage(content: DiskContent, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    location = stored(content).path
    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(OSError, match="Too many"):
        content.read_cold(location, len(DATA), 0, 5)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_takes_no_file_is_not_ready(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "open", failing_with(code))
    with pytest.raises(OSError, match=r"no file can be made in .*partial: "):
        content.check()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP])
def test_a_disk_that_is_full_or_has_no_nameless_files_is_ready(
    content: DiskContent, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "open", failing_with(code))
    content.check()


def failing_with(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail
