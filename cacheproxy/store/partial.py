"""A blob that is still arriving: a sparse file of its full size, and a journal of what is safely in it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cacheproxy.core.blob import BlobBroken
from cacheproxy.core.digest import Digest
from cacheproxy.core.intervals import Intervals
from cacheproxy.store import journal
from cacheproxy.store.durable import FILE_MODE, lasting, remove, sync_file, sync_folder
from cacheproxy.store.vectored import write_at

KEPT = 7 * 86400.0
"""Seconds that an unfinished download waits for the next request for it."""

DATA, JOURNAL = ".part", ".journal"
"""How the two files of a partial blob end, behind `<algorithm>-<hex>`."""

_PRIVATE = os.O_NOFOLLOW | os.O_CLOEXEC


class Partial:
    """All methods block, and belong into a thread; `write` and `read` may run side by side.

    The descriptor stays readable after `commit` and `discard`, until `close`.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        stem: Path,
        fds: tuple[int, int],
        state: journal.Replay,
        released: Callable[[Digest], None],
    ) -> None:
        self.digest = digest
        self.size = size
        self.intervals: Intervals = state.intervals
        """What the journal says is on the disk. Not proven: hash it before it is believed."""
        self.etags = state.etags
        """By which ETags the blob is known to those who send it, as journaled; kept true from outside."""
        self._etags = dict(state.etags)
        """Those that are journaled."""
        self._stem = stem
        self._fd, self._journal = fds
        self._checksum = state.checksum
        self._released = released
        self._named = False
        """Whether the names of both files are known to be durable."""
        self._failure: OSError | None = None
        self._closed = False
        self._gone = False
        """Whether the files are no longer ours."""

    def fileno(self) -> int:
        return self._fd

    def write(self, offset: int, chunks: Sequence[bytes | memoryview]) -> None:
        """Write all of the chunks, one behind the other, from `offset`.

        Raises OSError as the system gave it (ENOSPC, EDQUOT, EFBIG: the caller goes on without a file), and
        ValueError for bytes past the end of the blob.
        """
        if offset + sum(map(len, chunks)) > self.size:
            raise ValueError(f"bytes past the end of {self.digest}, which has {self.size}")
        write_at(self._fd, chunks, offset)

    def read(self, offset: int, count: int) -> bytes:
        """Between 1 and `count` bytes from `offset`. Raises BlobBroken when the file ends there."""
        data = os.pread(self._fd, count, offset)
        if not data:
            raise BlobBroken(f"the partial file of {self.digest} ends at {offset}, short of {self.size}")
        return data

    def checkpoint(self, intervals: Iterable[tuple[int, int]]) -> None:
        """Make the runs last, then journal those that were not: what a restart can go on from.

        All of them were written before the call. Raises StoreSuspect when the disk cannot be trusted, OSError
        when it is full; and the same again from then on.
        """
        fresh = [gap for start, stop in intervals for gap in self.intervals.gaps(start, stop)]
        if not fresh:
            return
        with self._final():
            sync_file(self._fd, f"the partial file of {self.digest}")
            etags = dict(self.etags)  # at once: whoever keeps them true is in another thread
            news = dict(etags.items() - self._etags.items())
            text, checksum = journal.etag_lines(news, self._checksum)
            runs, checksum = journal.lines(fresh, checksum)
            _append(self._journal, text + runs)
            sync_file(self._journal, f"the journal of {self.digest}")
            if not self._named:
                sync_folder(self._stem.parent)
                self._named = True
        self._checksum, self._etags = checksum, etags
        for start, stop in fresh:
            self.intervals.add(start, stop)

    def rename(self, target: Path) -> None:
        """Make the bytes last, then give them their final name; the caller makes that name last.

        Raises StoreSuspect, or OSError for want of space.
        """
        with self._final():
            # Its last byte may be days old; who looks for files without a row goes by when they became files.
            os.utime(self._fd)
            sync_file(self._fd, f"the file of {self.digest}")
            with lasting(f"cannot rename the file of {self.digest}"):
                os.rename(_data(self._stem), target)  # noqa: PTH104 - beside its siblings of `os`

    def forget(self) -> None:
        """The file has its final name: its journal goes."""
        # Not synced: a journal without a file is as good as none.
        remove(_journal(self._stem))
        self._release()

    def leave(self, intervals: Iterable[tuple[int, int]]) -> None:
        """Checkpoint, and let another `Partial` go on with the files while this descriptor is still read.

        Raises as `checkpoint` does; the files are given up in any case.
        """
        try:
            self.checkpoint(intervals)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._release()

    def discard(self) -> None:
        """Remove both files. What is in the open descriptor stays readable."""
        clear(self._stem)
        self._release()

    def close(self) -> None:
        """Both descriptors; what was journaled stays for the next time. Once or more often."""
        if not self._closed:
            self._closed = True
            for fd in (self._fd, self._journal):
                with suppress(OSError):  # what has to last was synced
                    os.close(fd)
        self._release()

    @contextmanager
    def _final(self) -> Iterator[None]:
        """A failed sync is final, for the kernel has marked the lost pages clean; so is a line cut short."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except OSError as error:
            self._failure = error
            raise

    def _release(self) -> None:
        # Once: the name may be in another's use by the time this descriptor is closed.
        if not self._gone:
            self._gone = True
            self._released(self.digest)


def start(digest: Digest, size: int, stem: Path, released: Callable[[Digest], None]) -> Partial:
    """An empty partial file in place of whatever is there. Raises OSError."""
    clear(stem)
    with ExitStack() as undo:
        fd = _open(undo, _data(stem), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        undo.callback(remove, _data(stem))
        _lock(fd)
        os.ftruncate(fd, size)
        log = _open(undo, _journal(stem), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        undo.callback(remove, _journal(stem))
        text, checksum = journal.opening(digest, size)
        _append(log, text)
        undo.pop_all()
    state = journal.Replay(Intervals(), len(text), checksum, {})
    return Partial(digest, size, stem, (fd, log), state, released)


def resume(digest: Digest, size: int, stem: Path, released: Callable[[Digest], None]) -> Partial | None:
    """The partial file as its journal left it; None when there is none, or the two do not fit one another.

    Raises BlockingIOError when another process is writing it, and OSError.
    """
    with ExitStack() as undo:
        try:
            fd = _open(undo, _data(stem), os.O_RDWR)
            _lock(fd)
            log = _open(undo, _journal(stem), os.O_RDWR | os.O_APPEND)
        except (FileNotFoundError, _NotOurs):
            return None
        state = _replay(fd, log, digest, size)
        if state is None:
            return None
        # What is behind the last good line was never promised, and the next line must follow a good one.
        os.ftruncate(log, state.length)
        undo.pop_all()
    return Partial(digest, size, stem, (fd, log), state, released)


def clear(stem: Path) -> None:
    """Remove both files: the journal first, and for good, for it must never meet another file's bytes."""
    if remove(_journal(stem)):
        sync_folder(stem.parent)
    remove(_data(stem))


class _NotOurs(Exception):
    """Something that we would not have put there."""


def _open(undo: ExitStack, path: Path, flags: int) -> int:
    try:
        fd = os.open(path, flags | _PRIVATE, FILE_MODE)
    except OSError as error:
        if path.is_symlink():
            raise _NotOurs from error
        raise
    undo.callback(os.close, fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise _NotOurs
    return fd


def _lock(fd: int) -> None:
    # Two daemons on one folder by mistake: the second must not write into what the first has hashed.
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _replay(fd: int, log: int, digest: Digest, size: int) -> journal.Replay | None:
    length = os.fstat(log).st_size
    if length > journal.LIMIT or os.fstat(fd).st_size != size:
        return None
    return journal.replay(os.pread(log, length, 0), digest, size)


def _append(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]


def _data(stem: Path) -> Path:
    return stem.with_name(stem.name + DATA)


def _journal(stem: Path) -> Path:
    return stem.with_name(stem.name + JOURNAL)
