"""What clients have sent of blobs that are not whole: one file a session, appended to.

    <root>/uploads/<session>

The file's size is how far the upload is, whatever else was lost. Its bytes are hashed as they come; after a
restart, or by another process, they are hashed again when they are needed. Nothing of it is promised to last
before it has become a blob (content.Content.commit).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cacheproxy.core.digest import Digest, Hasher
from cacheproxy.store.durable import FILE_MODE, lasting, remove, sync_file
from cacheproxy.store.sessions import NOTHING, Chunk, Sent, UploadBusy, UploadGone
from cacheproxy.store.vectored import write_at

FOLDER = "uploads"
STATES_KEPT = 1024
"""Uploads whose hash so far is remembered between two requests. A hash is a kilobyte."""
READ_BACK = 1 << 20
WRITTEN_BACK = 256 << 10
"""Bytes of one write for which the disk is to begin at once, while more come in: then the sync before the
answer has little left to do.
"""

_SESSION = re.compile(r"[0-9a-f]{32}")
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Hashed(NamedTuple):
    """A hash over the first `size` bytes."""

    algorithm: str
    size: int
    state: Hasher
    mtime: int = 0
    """Of the file, ns, when its user left it: later, and the bytes are another process's."""


class UploadFile:
    """sessions.Upload: all that was received is in the file."""

    def __init__(self, path: Path, fd: int, hashed: Hashed, left: Callable[[Hashed], None]) -> None:
        self.path = path
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._hashed = hashed
        self._left = left

    def append(self, chunks: Sequence[bytes]) -> None:
        """Raises OSError: then the file ends where `size` says, or the disk is not to be trusted."""
        try:
            write_at(self._fd, chunks, self.size)
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        size = sum(map(len, chunks))
        if size >= WRITTEN_BACK:
            _begin_to_write_back(self._fd, self.size, size)
        if self._hashed.size == self.size:
            for chunk in chunks:
                self._hashed.state.update(chunk)
            self._hashed = self._hashed._replace(size=self.size + size)
        self.size += size

    def cut(self, size: int) -> None:
        """Take back what is behind `size` bytes."""
        os.ftruncate(self._fd, size)
        self.size = size
        if self._hashed.size > size:
            self._hashed = fresh(self._hashed.algorithm)

    def digest(self, algorithm: str) -> Digest:
        """Of all that is there: quick where it was hashed on arrival."""
        hashed = self._hashed if self._hashed.algorithm == algorithm else fresh(algorithm)
        while hashed.size < self.size:
            chunk = self.read(hashed.size, READ_BACK)
            hashed.state.update(chunk)
            hashed = hashed._replace(size=hashed.size + len(chunk))
        self._hashed = hashed
        return Digest.parse(f"{algorithm}:{hashed.state.hexdigest()}")

    def read(self, offset: int, count: int) -> bytes:
        """Between 1 and `count` bytes. Raises OSError where the file has become shorter."""
        data = os.pread(self._fd, min(count, self.size - offset), offset)
        if not data:
            raise OSError(errno.EIO, f"{self.path} is shorter than what was received")
        return data

    def send(self) -> Chunk | None:
        """The file is all there is to it."""
        return None

    def proven(self, digest: Digest) -> Received:
        return Received(digest, self)

    @property
    def hashed(self) -> Hashed:
        """How far the hash is."""
        return self._hashed

    def rename(self, target: Path) -> None:
        """Make the bytes last and give them this name in the same file system; the caller makes that last.

        Raises UploadGone when the session was ended meanwhile, StoreSuspect, or OSError for want of space.
        """
        os.utime(self._fd)  # who looks for files without a row goes by when they became files
        sync_file(self._fd, f"the upload {self.path.name}")
        with lasting(f"cannot rename the upload {self.path.name}"):
            try:
                self.path.rename(target)
            except FileNotFoundError:
                if self.path.exists():  # then it is the folder that is not there
                    raise
                raise UploadGone(self.path.name) from None

    def discard(self) -> None:
        """The bytes are elsewhere, or not wanted any more."""
        remove(self.path)

    def close(self) -> None:
        self._left(self._hashed._replace(mtime=os.fstat(self._fd).st_mtime_ns))
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Received:
    """An upload that was received whole, and is what it was said to be (proven.Proven)."""

    digest: Digest
    file: UploadFile

    @property
    def size(self) -> int:
        return self.file.size

    def read(self, offset: int, count: int) -> bytes:
        return self.file.read(offset, count)

    def rename(self, target: Path) -> None:
        self.file.rename(target)

    def forget(self) -> None:
        """Beside the file there is nothing."""

    def discard(self) -> None:
        self.file.discard()


class UploadFiles:
    """sessions.Uploads: a folder."""

    def __init__(self, root: Path) -> None:
        """`root` is there, and holds blobs in the same file system."""
        self._folder = root / FOLDER
        self._states: OrderedDict[str, Hashed] = OrderedDict()
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def begin(self, session: str) -> None:
        """Raises OSError."""
        os.close(os.open(self._path(session), _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE))

    def spool(self, name: str, hashed: Hashed) -> UploadFile:
        """A new file for what one request brings: `hashed` is what its hash begins with. Raises OSError."""
        fd = os.open(self._path(name), _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return UploadFile(self._path(name), fd, hashed, lambda _: None)

    def open(self, session: str, algorithm: str, sent: Sent = NOTHING) -> UploadFile:
        """The one user of the file. Raises UploadGone, UploadBusy, OSError."""
        path = self._path(session)
        fd = _open(path)
        try:
            # Against other processes, and other requests of this one: each has a descriptor of its own.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists():  # it ended between the two calls
                raise UploadGone(session)
        except BlockingIOError:
            os.close(fd)
            raise UploadBusy(session) from None
        except BaseException:
            os.close(fd)
            raise
        hashed = self._states.pop(session, None)
        if hashed is None or hashed.mtime != os.fstat(fd).st_mtime_ns:
            hashed = fresh(algorithm)
        return UploadFile(path, fd, hashed, lambda left: self._keep(session, left))

    def size(self, session: str, sent: Sent = NOTHING) -> int:
        """Raises UploadGone."""
        try:
            return self._path(session).stat().st_size
        except FileNotFoundError:
            raise UploadGone(session) from None

    def idle(self, session: str) -> bool:
        """Whether no request is appending to it; true of one that is gone."""
        try:
            self.open(session, "sha256").close()
        except UploadBusy:
            return False
        except UploadGone:
            return True
        return True

    def drop(self, session: str) -> bool:
        """False when there was none. Whoever appends to it appends to nothing."""
        self._states.pop(session, None)
        return remove(self._path(session))

    def stale(self, older_than: float, now: float) -> Iterator[str]:
        """Sessions whose file was not written to for more than so many seconds."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    untouched = now - entry.stat(follow_symlinks=False).st_mtime
                    if _SESSION.fullmatch(entry.name) is not None and untouched > older_than:
                        yield entry.name

    def files(self, older_than: float, now: float) -> Iterator[tuple[str, str]]:
        """There are no chunks in a folder."""
        return iter(())

    def remove(self, key: str) -> bool:
        """Nor here."""
        return False

    def _path(self, session: str) -> Path:
        assert _SESSION.fullmatch(session) is not None
        return self._folder / session

    def _keep(self, session: str, hashed: Hashed) -> None:
        self._states[session] = hashed
        self._states.move_to_end(session)
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)


def _open(path: Path) -> int:
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR):
            raise UploadGone(path.name) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UploadGone(path.name)
    return fd


def fresh(algorithm: str) -> Hashed:
    """Over nothing yet."""
    return Hashed(algorithm, 0, hashlib.new(algorithm))


def _begin_to_write_back(fd: int, offset: int, size: int) -> None:
    """Linux begins with what is dirty there, and drops from memory only what is clean: not these pages."""
    with suppress(OSError):  # it is advice
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
