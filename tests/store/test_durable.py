from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cacheproxy.store.durable import lasting, make_folder, remove, sync_file, sync_folder
from cacheproxy.store.errors import StoreBusy, StoreFull, StoreSuspect
from tests.store.conftest import open_descriptors


def test_failure_to_make_something_last_is_suspect() -> None:
    with pytest.raises(StoreSuspect, match="cannot do it: no such luck") as caught, lasting("cannot do it"):
        raise OSError(errno.EIO, "no such luck")
    assert caught.value.errno == errno.EIO
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_want_of_space_passes_as_it_is(code: int) -> None:
    failure = OSError(code, "full")
    with pytest.raises(OSError, match="full") as caught, lasting("cannot do it"):
        raise failure
    assert caught.value is failure


@pytest.mark.parametrize("kind", [StoreSuspect, StoreFull, StoreBusy])
def test_failures_of_the_store_are_caught_as_the_systems_are(kind: type[OSError]) -> None:
    with pytest.raises(OSError, match="what") as caught:
        raise kind(errno.EIO, "what")
    assert caught.value.errno == errno.EIO


def test_folders_are_made_from_the_top_each_synced_in_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    real = os.fsync

    def record(fd: int) -> None:
        folder = Path(f"/proc/self/fd/{fd}").readlink()
        seen.append((folder.name, (tmp_path / "a" / "b").exists()))
        real(fd)

    monkeypatch.setattr(os, "fsync", record)
    make_folder(tmp_path / "a" / "b")
    assert seen == [(tmp_path.name, False), ("a", True)]


def test_folder_that_is_there_needs_no_rights_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("nothing to sync"))
    make_folder(tmp_path)


def test_failing_sync_of_a_file_or_folder_is_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreSuspect):
        sync_folder(tmp_path)
    with pytest.raises(StoreSuspect):
        sync_file(0, "this")


def test_failing_sync_of_a_folder_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    before = open_descriptors()
    with pytest.raises(StoreSuspect):
        sync_folder(tmp_path)
    assert open_descriptors() == before


def test_remove_says_whether_there_was_something(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert remove(tmp_path / "file")
    assert not remove(tmp_path / "file")
