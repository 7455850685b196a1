"""What is stored, by its place: read from a folder or from a bucket, without touching anything."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cacheproxy.core.invariants import Stored
from cacheproxy.store import disk
from cacheproxy.store.durable import remove
from cacheproxy.store.partial import DATA
from cacheproxy.store.uploads import FOLDER

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


class Beside(NamedTuple):
    """A file or object that is no blob."""

    place: str
    size: int
    written: float
    """Seconds since the epoch."""


_SESSION = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})")
_CHUNK = re.compile(rf"{FOLDER}/[0-9a-f]{{32}}/[0-9]{{20}}\.[0-9a-f]{{16}}")
_ASIDE = re.compile(rf"{disk.QUARANTINE}/([a-z0-9]+)-([0-9a-f]{{2}})([0-9a-f]+\.[0-9]+)")


def known_as(place: str) -> str | None:
    """How a row would name what is at this place beside the blobs: an upload's session, a chunk's key, or
    where the bytes were before they were set aside. None: it is nobody's of ours."""
    if (session := _SESSION.fullmatch(place)) is not None:
        return session[1]
    if _CHUNK.fullmatch(place) is not None:
        return place
    aside = _ASIDE.fullmatch(place)
    return None if aside is None else f"blobs/{aside[1]}/{aside[2]}/{aside[2]}{aside[3]}"


class Listing(Protocol):
    """All methods block."""

    name: str
    """For messages."""

    def stored(self, shard: str) -> Iterator[Stored]:
        """What there is of one of SHARDS, or with "", of all. Raises OSError."""
        ...

    def beside(self) -> Iterator[Beside]:
        """What is kept beside the blobs: what is being sent, and what was set aside. Raises OSError."""
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

    def beside(self) -> Iterator[Beside]:
        for folder in (FOLDER, disk.QUARANTINE):
            with suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
                for entry in entries:
                    place = f"{folder}/{entry.name}"
                    with suppress(FileNotFoundError):  # it ended meanwhile
                        state = entry.stat(follow_symlinks=False)
                        if known_as(place) is not None and stat.S_ISREG(state.st_mode):
                            yield Beside(place, state.st_size, state.st_mtime)

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
        ours = disk.digest_at(location) is not None or known_as(location) is not None
        return ours and remove(self._root / location)


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

    def beside(self) -> Iterator[Beside]:
        """What was set aside has kept its place."""
        for key, size, written in self._bucket.list(FOLDER):
            if known_as(key) is not None:
                yield Beside(key, size, written)

    def confirm(self) -> None:
        """A bucket that is not there has no list either."""

    def chunks(self, location: str, size: int) -> Iterator[memoryview]:
        for start in range(0, size, RANGE):
            piece = self._bucket.get(location, start, min(start + RANGE, size))
            if piece is None:
                raise FileNotFoundError(f"{location} is not in {self.name}")
            yield piece.data

    def remove(self, location: str) -> bool:
        ours = disk.digest_at(location) is not None or known_as(location) is not None
        if not ours or self._bucket.size(location) is None:
            return False
        self._bucket.delete(location)
        return True
