"""Uploads as files: appended to, hashed on arrival, resumed after whatever happened."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.store import uploads
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.sessions import UploadBusy, UploadGone
from cacheproxy.store.uploads import UploadFile, UploadFiles

SESSION = "0123456789abcdef" * 2
OTHER = "f" * 32


@pytest.fixture
def files(tmp_path: Path) -> UploadFiles:
    made = UploadFiles(tmp_path)
    made.begin(SESSION)
    return made


def sent(files: UploadFiles, *chunks: bytes) -> None:
    upload = files.open(SESSION, "sha256")
    upload.append(chunks)
    upload.close()


def digest(files: UploadFiles, algorithm: str = "sha256") -> Digest:
    upload = files.open(SESSION, algorithm)
    try:
        return upload.digest(algorithm)
    finally:
        upload.close()


def test_bytes_are_appended(files: UploadFiles, tmp_path: Path) -> None:
    sent(files, b"he", b"l")
    sent(files, b"lo")
    assert files.size(SESSION) == 5
    assert (tmp_path / "uploads" / SESSION).read_bytes() == b"hello"


def test_nobody_else_reads_an_upload(files: UploadFiles, tmp_path: Path) -> None:
    assert (tmp_path / "uploads" / SESSION).stat().st_mode & 0o777 == 0o600


def test_a_session_begins_once(files: UploadFiles) -> None:
    with pytest.raises(FileExistsError):
        files.begin(SESSION)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_digest_is_over_all_that_was_sent(files: UploadFiles, algorithm: str) -> None:
    sent(files, b"hel")
    sent(files, b"lo")
    assert digest(files, algorithm) == Digest.of(b"hello", algorithm)


def test_what_was_hashed_on_arrival_is_not_read_again(
    files: UploadFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(files, b"hel")
    sent(files, b"lo")

    def read(*_: object) -> bytes:
        raise AssertionError("read again")

    monkeypatch.setattr(UploadFile, "read", read)
    assert digest(files) == Digest.of(b"hello")


def test_after_a_restart_it_is_hashed_from_the_file(files: UploadFiles, tmp_path: Path) -> None:
    sent(files, b"hel")
    again = UploadFiles(tmp_path)
    sent(again, b"lo")
    assert digest(again) == Digest.of(b"hello")


def test_a_hash_over_bytes_that_another_process_has_changed_is_not_believed(
    files: UploadFiles, tmp_path: Path
) -> None:
    sent(files, b"hello")
    (tmp_path / "uploads" / SESSION).write_bytes(b"jello")
    assert digest(files) == Digest.of(b"jello")


def test_what_is_cut_off_is_not_in_the_digest(files: UploadFiles) -> None:
    upload = files.open(SESSION, "sha256")
    upload.append([b"hello"])
    upload.cut(4)
    upload.append([b"!"])
    assert upload.digest("sha256") == Digest.of(b"hell!")
    upload.close()


def test_a_write_that_fails_leaves_what_was_there(
    files: UploadFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(files, b"hel")
    upload = files.open(SESSION, "sha256")

    def full(fd: int, chunks: list[bytes], offset: int) -> None:
        os.pwrite(fd, b"l", offset)
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(uploads, "write_at", full)
    with pytest.raises(OSError, match="no space"):
        upload.append([b"lo"])
    upload.close()
    monkeypatch.undo()
    assert files.size(SESSION) == 3
    sent(files, b"lo")
    assert digest(files) == Digest.of(b"hello")


def test_one_request_at_a_time_has_it(files: UploadFiles, tmp_path: Path) -> None:
    upload = files.open(SESSION, "sha256")
    for others in (files, UploadFiles(tmp_path)):
        with pytest.raises(UploadBusy):
            others.open(SESSION, "sha256")
    upload.close()
    files.open(SESSION, "sha256").close()


def test_a_session_without_a_file_is_gone(files: UploadFiles) -> None:
    with pytest.raises(UploadGone):
        files.open(OTHER, "sha256")
    with pytest.raises(UploadGone):
        files.size(OTHER)
    assert not files.drop(OTHER)


def test_a_dropped_session_is_gone_even_while_it_is_appended_to(files: UploadFiles, tmp_path: Path) -> None:
    upload = files.open(SESSION, "sha256")
    assert files.drop(SESSION)
    upload.append([b"hello"])
    upload.close()
    with pytest.raises(UploadGone):
        files.open(SESSION, "sha256")
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), lambda path: path.mkdir()])
def test_what_is_no_file_of_ours_is_gone(files: UploadFiles, tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "uploads" / OTHER)
    with pytest.raises(UploadGone):
        files.open(OTHER, "sha256")


def test_it_becomes_what_it_is_named(files: UploadFiles, tmp_path: Path) -> None:
    upload = files.open(SESSION, "sha256")
    upload.append([b"hello"])
    upload.rename(tmp_path / "blob")
    upload.close()
    assert (tmp_path / "blob").read_bytes() == b"hello"
    assert list((tmp_path / "uploads").iterdir()) == []


def test_one_that_was_ended_meanwhile_becomes_nothing(files: UploadFiles, tmp_path: Path) -> None:
    upload = files.open(SESSION, "sha256")
    files.drop(SESSION)
    with pytest.raises(UploadGone):
        upload.rename(tmp_path / "blob")
    upload.close()


def test_a_folder_that_is_gone_is_the_disks_fault(files: UploadFiles, tmp_path: Path) -> None:
    upload = files.open(SESSION, "sha256")
    with pytest.raises(StoreSuspect):
        upload.rename(tmp_path / "gone" / "blob")
    upload.close()


def test_a_failed_sync_is_final(files: UploadFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = files.open(SESSION, "sha256")

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(StoreSuspect):
        upload.rename(tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    upload.close()


def test_sessions_that_nobody_came_back_to_are_stale(files: UploadFiles, tmp_path: Path) -> None:
    files.begin(OTHER)
    (tmp_path / "uploads" / "notes.txt").write_text("not ours")
    now = time.time()
    os.utime(tmp_path / "uploads" / OTHER, (now - 100, now - 100))
    os.utime(tmp_path / "uploads" / "notes.txt", (now - 100, now - 100))
    assert list(files.stale(50, now)) == [OTHER]


def test_hashes_of_old_sessions_are_forgotten(files: UploadFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STATES_KEPT", 1)
    sent(files, b"hello")
    files.begin(OTHER)
    files.open(OTHER, "sha256").close()
    assert digest(files) == Digest.of(b"hello")


def test_the_disk_begins_with_large_writes_at_once(
    files: UploadFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *rest: begun.append(rest))
    large = bytes(uploads.WRITTEN_BACK)
    sent(files, b"small")
    sent(files, large[:1], large[1:])
    assert begun == [(5, len(large), os.POSIX_FADV_DONTNEED)]


def test_advice_that_a_file_system_does_not_take_fails_nothing(
    files: UploadFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    large = bytes(uploads.WRITTEN_BACK)
    sent(files, large)
    assert digest(files) == Digest.of(large)
