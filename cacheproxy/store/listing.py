"""What is stored, by its place: read from a folder or from a bucket, without touching anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cacheproxy.core.invariants import Stored
from cacheproxy.store import disk
from cacheproxy.store.durable import remove
from cacheproxy.store.partial import DATA

if TYPE_CHECKING:
    from cacheproxy.store.bucket import Bucket

STEP = 1 << 20
"""Bytes read at a time from a file."""
RANGE = 8 << 20
"""Bytes asked of a bucket at a time: each request has a deadline, and costs a round trip."""

_BYTES = [f"{byte:02x}" for byte in range(256)]
SHARDS = tuple(f"{algorithm}/{byte}" for algorithm in ("sha256", "sha512") for byte in _BYTES)
"""Folders of blobs: what is looked through at a time, so that memory is bounded whatever is stored."""


def arriving(folder: Path) -> list[tuple[str, float]]:
    """Of the unfinished downloads below a DiskContent's folder the names, and when they were last written."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder / "partial") as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # its fill ended meanwhile
                if entry.name.endswith(DATA):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_mtime))
    return found


class Listing(Protocol):
    """All methods block."""

    name: str
    """For messages."""

    def stored(self, shard: str) -> Iterator[Stored]:
        """What there is of one of SHARDS, or with "", of all. Raises OSError."""
        ...

    def confirm(self) -> None:
        """That there is a store at all, if an empty one. Raises OSError."""
        ...

    def chunks(self, location: str, size: int) -> Iterator[bytes | memoryview]:
        """Its bytes. Raises OSError; FileNotFoundError when it is gone."""
        ...

    def remove(self, location: str) -> bool:
        """False: it was not there. Raises OSError."""
        ...


class Folder:
    """The files of a DiskContent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = str(root)

    def stored(self, shard: str) -> Iterator[Stored]:
        for one in [shard] if shard else SHARDS:
            with suppress(FileNotFoundError), os.scandir(self._root / "blobs" / one) as entries:
                for entry in entries:
                    yield from _stored(entry, f"blobs/{one}/{entry.name}")

    def confirm(self) -> None:
        folder = self._root / "blobs"
        if not folder.is_dir():
            said = (
                "the folder of all blobs is not there: is it mounted? (If it was removed, make an empty one)"
            )
            raise FileNotFoundError(errno.ENOENT, said, str(folder))

    def chunks(self, location: str, size: int) -> Iterator[bytes]:
        fd = os.open(self._root / location, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while chunk := file.read(STEP):
                yield chunk

    def remove(self, location: str) -> bool:
        return disk.digest_at(location) is not None and remove(self._root / location)


def _stored(entry: os.DirEntry[str], location: str) -> Iterator[Stored]:
    digest = disk.digest_at(location)
    if digest is None:
        return
    with suppress(FileNotFoundError):  # evicted meanwhile
        state = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(state.st_mode):
            yield Stored(digest, location, state.st_size, state.st_mtime)


class Objects:
    """The objects of an ObjectContent."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.name = bucket.name

    def stored(self, shard: str) -> Iterator[Stored]:
        for key, size, written in self._bucket.list(f"blobs/{shard}"):
            digest = disk.digest_at(key)
            if digest is not None:
                yield Stored(digest, key, size, written)

    def confirm(self) -> None:
        """A bucket that is not there has no list either."""

    def chunks(self, location: str, size: int) -> Iterator[memoryview]:
        for start in range(0, size, RANGE):
            piece = self._bucket.get(location, start, min(start + RANGE, size))
            if piece is None:
                raise FileNotFoundError(f"{location} is not in {self.name}")
            yield piece.data

    def remove(self, location: str) -> bool:
        if disk.digest_at(location) is None or self._bucket.size(location) is None:
            return False
        self._bucket.delete(location)
        return True
