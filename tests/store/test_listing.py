from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from cacheproxy.core.digest import Digest
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.disk import place
from cacheproxy.store.listing import RANGE, SHARDS, STEP, Folder, Objects

DATA = b"some bytes" * 10
DIGEST = Digest.of(DATA)
PLACE = place(DIGEST, 7).path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_bytes(DATA)
    os.utime(tmp_path / PLACE, (5.0, 5.0))
    return Folder(tmp_path)


@pytest.fixture
def bucket() -> Bucket:
    bucket = Bucket(MemoryStore(), "memory://test")
    bucket.put(PLACE, len(DATA), iter([DATA]))
    return bucket


def test_files_are_told_with_size_and_time(folder: Folder) -> None:
    assert list(folder.stored("")) == [(DIGEST, PLACE, len(DATA), 5.0)]
    assert list(folder.stored(f"sha256/{DIGEST.hex[:2]}")) == list(folder.stored(""))
    assert list(folder.stored("sha512/00")) == []


def test_links_and_folders_are_not_files(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / place(DIGEST, 8).path).symlink_to("/etc/passwd")
    (tmp_path / place(DIGEST, 9).path).mkdir()
    assert [file.location for file in folder.stored("")] == [PLACE]
    (tmp_path / place(DIGEST, 8).path).read_bytes()
    with pytest.raises(OSError, match="symbolic links") as raised:
        list(folder.chunks(place(DIGEST, 8).path, 1))
    assert raised.value.errno == errno.ELOOP


def test_nothing_is_made(tmp_path: Path) -> None:
    assert list(Folder(tmp_path / "nowhere").stored("")) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_read_in_steps(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / PLACE).write_bytes(bytes(STEP + 1))
    assert [len(chunk) for chunk in folder.chunks(PLACE, 0)] == [STEP, 1]
    with pytest.raises(FileNotFoundError):
        list(folder.chunks(place(DIGEST, 8).path, 1))


def test_only_places_of_blobs_are_removed(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / "rows.db").touch()
    assert [folder.remove(place) for place in ("rows.db", "../rows.db", PLACE, PLACE)] == [
        False,
        False,
        True,
        False,
    ]
    assert (tmp_path / "rows.db").exists()


def test_objects_are_told_with_size_and_time(bucket: Bucket) -> None:
    bucket.put("blobs/sha256/zz/notes", 1, iter([b"x"]))
    bucket.put("blobs-of-others/x", 1, iter([b"x"]))
    ((digest, location, size, written),) = Objects(bucket).stored("")
    assert (digest, location, size) == (DIGEST, PLACE, len(DATA))
    assert written > 1e9
    assert [one.location for one in Objects(bucket).stored(f"sha256/{DIGEST.hex[:2]}")] == [PLACE]
    assert list(Objects(bucket).stored("sha512/00")) == []


def test_an_object_is_read_by_ranges(bucket: Bucket) -> None:
    large = RANGE + 5
    bucket.put(PLACE, large, iter([bytes(large)]))
    assert [len(chunk) for chunk in Objects(bucket).chunks(PLACE, large)] == [RANGE, 5]
    with pytest.raises(FileNotFoundError):
        list(Objects(bucket).chunks(place(DIGEST, 8).path, 1))


def test_only_objects_of_blobs_are_removed(bucket: Bucket) -> None:
    bucket.put("notes", 1, iter([b"x"]))
    objects = Objects(bucket)
    assert [objects.remove(place) for place in ("notes", PLACE, PLACE)] == [False, True, False]
    assert bucket.size("notes") == 1


def test_the_shards_are_all_places_of_digests() -> None:
    assert len(SHARDS) == len(set(SHARDS)) == 512
    assert all(
        place(Digest.of(b"x", name), 1).path.rsplit("/", 1)[0].removeprefix("blobs/") in SHARDS
        for name in ("sha256", "sha512")
    )
