"""Blobs as files: immutable, private, one file a generation, reached only through names built from a Digest.

    <root>/blobs/<algorithm>/<first two of hex>/<hex>.<generation>
    <root>/partial/<algorithm>-<hex>.part, .journal
    <root>/quarantine/<algorithm>-<hex>.<generation>

A blob becomes one in this order: sync of its bytes, rename, sync of the folder(s); then the caller records
it. A file without a row is never served.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial as bind
from pathlib import Path
from typing import NamedTuple

import trio

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.store import partial as partials
from cacheproxy.store.durable import (
    FILE_MODE,
    FOLDER_MODE,
    OUT_OF_SPACE,
    UNREADABLE,
    make_folder,
    remove,
    sync_folder,
)
from cacheproxy.store.errors import BlobDamaged, BlobMissing
from cacheproxy.store.partial import Partial
from cacheproxy.store.proven import Proven
from cacheproxy.store.uploads import UploadFiles

_LOCATION = re.compile(r"blobs/([a-z0-9]+)/[0-9a-f]{2}/([0-9a-f]+)\.([1-9][0-9]{0,18})")
QUARANTINE = "quarantine"
"""The folder of files that are not the blobs they were stored as."""

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Location(NamedTuple):
    """Where the store has put a blob: what the blob's row keeps."""

    path: str
    """Below the store's root. Believed only where it is the name that the digest gives."""
    generation: int


class Unfinished(NamedTuple):
    digest: Digest
    bytes: int
    """What it takes of the disk."""
    mtime: float
    """Seconds since the epoch."""


class DiskContent:
    """Everything but `open` and `capacity` blocks, and belongs into a thread."""

    def __init__(self, root: Path, generation: Callable[[], int] = lambda: secrets.randbits(62) + 1) -> None:
        """Make the folders below `root`, and `root` itself.

        `generation` gives a number never given before, for one digest at least. Raises OSError, StoreSuspect.
        """
        self.root = root
        self._generation = generation
        self._partials = root / "partial"
        self._lasting: set[Path] = {root}
        """Folders whose names are known to be durable."""
        self._open: set[Digest] = set()
        """Digests whose partial files are in use."""
        self._taking = threading.Lock()
        """No partial file is removed while it is taken into use."""
        make_folder(root)
        self._folder(self._partials)
        self._folder(root / "blobs")
        self.uploads = UploadFiles(root)

    def open(self, digest: Digest, location: str, size: int) -> StoredBlob:
        """Open a stored blob of `size` bytes; a few microseconds, no waiting.

        Raises BlobMissing when there is no such file, BlobDamaged when it is not one of that size or cannot
        be read; OSError for want of descriptors and the like, which say nothing about the blob.
        """
        if digest_at(location) != digest:
            raise BlobMissing(f"{location!r} is not a place for {digest}")
        return StoredBlob(digest, size, self._opened(location, size))

    def _opened(self, location: str, size: int) -> int:
        try:
            fd = os.open(self.root / location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in UNREADABLE:
                raise _unreadable(location, error) from error
            if error.errno not in _NOT_THERE:
                raise
            raise BlobMissing(f"{location} is not there") from error
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_size != size:
            os.close(fd)
            said = f"{location} is not a file of {size} bytes, but has {state.st_size}"
            raise BlobDamaged(said, "truncated")
        return fd

    def read_cold(self, location: str, size: int, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of a stored blob as the disk has them, not as the page cache does.

        What they took of the page cache is given back. Raises as `open` does.
        """
        fd = self._opened(location, size)
        try:
            # Before, so that the disk is asked; afterwards, so that what is read here displaces nothing.
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)
            data = os.pread(fd, stop - start, start)
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            if error.errno in UNREADABLE:
                raise _unreadable(location, error) from error
            raise
        finally:
            os.close(fd)
        if len(data) != stop - start:
            raise BlobDamaged(f"{location} ends at {start + len(data)}, before {size}", "truncated")
        return data

    def confirm(self, digest: Digest, location: str, size: int) -> None:
        """That `open` would open it. Raises as it does."""
        self.open(digest, location, size).close()

    def set_aside(self, location: str) -> None:
        """Move a file that no row names any more where people look, and nobody looks for blobs.

        Once or more often; `remove` finds it there, too. Raises OSError.
        """
        if digest_at(location) is not None:
            self._folder(self.root / QUARANTINE)
            with suppress(FileNotFoundError):
                (self.root / location).rename(self._aside(location))

    def _aside(self, location: str) -> Path:
        digest = digest_at(location)
        assert digest is not None
        return self.root / QUARANTINE / f"{digest.algorithm}-{location.rpartition('/')[2]}"

    def partial(self, digest: Digest, size: int) -> Partial:
        """The partial file of a blob of `size` bytes, as its journal left it.

        Empty when there is none, it is damaged, or was for another size. One at a time for a digest, else
        ValueError. Raises BlockingIOError when another process has it, and OSError.
        """
        with self._taking:
            if digest in self._open:
                raise ValueError(f"the partial file of {digest} is open")
            self._open.add(digest)
        try:
            stem = self._stem(digest)
            here = partials.resume(digest, size, stem, self._open.discard)
            return here or partials.start(digest, size, stem, self._open.discard)
        except BaseException:
            self._open.discard(digest)
            raise

    def commit(self, proven: Proven) -> Location:
        """Make a proven file a stored blob, durably. Its descriptor stays readable.

        Raises StoreSuspect when the disk cannot be trusted, OSError when there is no room.
        """
        location = place(proven.digest, self._generation())
        target = self.root / location.path
        self._folder(target.parent)
        proven.rename(target)
        sync_folder(target.parent)
        proven.forget()
        return location

    def remove(self, location: str) -> bool:
        """Unlink one generation of a blob; False when it was not there. Open views of it stay readable."""
        if digest_at(location) is None:
            return False
        return remove(self.root / location) or remove(self._aside(location))

    def capacity(self) -> tuple[int, int]:
        """(free to us, total) bytes of the file system."""
        state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize

    def check(self) -> None:
        """That files can be made: a file system that stopped itself looks well until then. Raises OSError."""
        try:
            os.close(os.open(self._partials, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
        except OSError as error:
            # A full disk is no fault of a cache; and not every file system has files without a name.
            if error.errno not in OUT_OF_SPACE | _NO_TMPFILE:
                said = f"no file can be made in {self._partials}: {error.strerror}"
                raise OSError(error.errno, said) from error

    def partials(self) -> Iterator[Unfinished]:
        """What is in the folder of partial files."""
        for digest, states in self._unfinished().items():
            used = sum(state.st_blocks * 512 for state in states)
            yield Unfinished(digest, used, max(state.st_mtime for state in states))

    def reap(self, older_than: float, now: float) -> list[Digest]:
        """Remove partial files untouched for more than `older_than` seconds, but those in use; say which."""
        stale = [part.digest for part in self.partials() if now - part.mtime > older_than]
        return [digest for digest in stale if self._clear(digest)]

    def _clear(self, digest: Digest) -> bool:
        with self._taking:
            if digest in self._open:
                return False
            partials.clear(self._stem(digest))
            return True

    def files(self, older_than: float, now: float) -> Iterator[tuple[Digest, str]]:
        """(digest, location) of the stored files that were written more than `older_than` seconds ago."""
        for folder in sorted((self.root / "blobs").glob("*/*")):
            if not folder.is_dir():
                continue  # somebody's note
            for entry in os.scandir(folder):
                location = f"blobs/{folder.parent.name}/{folder.name}/{entry.name}"
                digest = digest_at(location)
                with suppress(FileNotFoundError):  # evicted meanwhile
                    if digest is not None and now - entry.stat(follow_symlinks=False).st_mtime > older_than:
                        yield digest, location

    def _unfinished(self) -> dict[Digest, list[os.stat_result]]:
        found: dict[Digest, list[os.stat_result]] = {}
        with os.scandir(self._partials) as entries:
            for entry in entries:
                digest = _partial_name(entry.name)
                if digest is not None:
                    with suppress(FileNotFoundError):  # a fill ended meanwhile
                        found.setdefault(digest, []).append(entry.stat(follow_symlinks=False))
        return {digest: states for digest, states in found.items() if states}

    def _stem(self, digest: Digest) -> Path:
        return self._partials / f"{digest.algorithm}-{digest.hex}"

    def _folder(self, folder: Path) -> None:
        """Make a folder below the root, and its name durable.

        Once a process even for those that exist: whoever made one may not have got to the sync.
        """
        if folder in self._lasting:
            return
        self._folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)
        self._lasting.add(folder)


class StoredBlob:
    """A BlobView over an open file: what is open stays readable whatever happens to its name."""

    def __init__(self, digest: Digest, size: int, fd: int) -> None:
        self.digest = digest
        self.size = size
        self._fd: int | None = fd

    async def available(self, offset: int, span: Span) -> int:
        """All of the span at once. Raises BlobDamaged when the file has become shorter than promised."""
        await trio.lowlevel.checkpoint()
        if self._fd is None:
            raise BlobBroken(f"the file of {self.digest} is closed")
        if os.fstat(self._fd).st_size < span.stop:
            raise BlobDamaged(f"the file of {self.digest} is shorter than {span.stop} bytes", "truncated")
        return span.stop - offset

    def fileno(self) -> int | None:
        return self._fd

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        """Raises BlobBroken when the file ends at `offset`, or is closed."""
        if self._fd is None:
            raise BlobBroken(f"the file of {self.digest} is closed")
        data = await trio.to_thread.run_sync(bind(os.pread, self._fd, count, offset))
        if not data:
            raise BlobBroken(f"the file of {self.digest} ends at {offset}")
        return data

    def close(self) -> None:
        """A second call does nothing: the number may be somebody else's descriptor by then."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _unreadable(location: str, error: OSError) -> BlobDamaged:
    return BlobDamaged(f"{location} cannot be read: {error.strerror}", "unreadable")


def place(digest: Digest, generation: int) -> Location:
    return Location(f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{generation}", generation)


def digest_at(location: str) -> Digest | None:
    """The digest that we would have given this place to; None for any other text: rows are not believed."""
    fields = _LOCATION.fullmatch(location)
    if fields is None:
        return None
    try:
        digest = Digest.parse(f"{fields[1]}:{fields[2]}")
    except InvalidDigest:
        return None
    return digest if location == place(digest, int(fields[3])).path else None


def _partial_name(name: str) -> Digest | None:
    """The digest that a file in the folder of partial files is named after; None for what is not ours."""
    path = Path(name)
    if path.suffix not in (partials.DATA, partials.JOURNAL):
        return None
    try:
        return Digest.parse(path.stem.replace("-", ":", 1))
    except InvalidDigest:
        return None
