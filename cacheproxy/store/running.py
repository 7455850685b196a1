"""Whether a daemon runs with a state folder, and whether the last one ended in order.

`<state>/running` is locked for as long as a daemon lives: a kill ends the lock, too. It says "running" until
the daemon has closed its stores. Both texts have one length: writing one over the other takes no room, so a
full disk is no reason not to start.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from cacheproxy.store.durable import FILE_MODE, OUT_OF_SPACE, make_folder, sync_file, sync_folder
from cacheproxy.store.errors import InUse

log = structlog.get_logger()

NAME = "running"
RUNS, STOPPED = b"running\n", b"stopped\n"


class Running:
    """All methods block, for a sync at most."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.unclean = os.pread(fd, len(RUNS), 0) == RUNS
        """Whoever ran last was killed, or failed, or the power went."""

    @classmethod
    def take(cls, state: Path) -> Running:
        """Nobody else runs with this folder until `close`. Raises InUse, OSError."""
        make_folder(state)
        path = state / NAME
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _owned(fd, state)
            return cls(path, fd)
        except BlockingIOError:
            os.close(fd)
            raise InUse(f"another process runs with {state}: a daemon, or cacheproxy fsck") from None
        except BaseException:
            os.close(fd)
            raise

    def starts(self) -> None:
        """From here on an end without `ended` is an unclean one. Raises OSError, StoreSuspect."""
        self._write(RUNS)

    def ended(self) -> None:
        """All is written, and closed. Raises OSError, StoreSuspect."""
        self._write(STOPPED)

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, text: bytes) -> None:
        try:
            os.pwrite(self._fd, text, 0)
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._path}: {error.strerror}") from error
        sync_file(self._fd, str(self._path))


@contextmanager
def running(state: Path) -> Iterator[bool]:
    """A daemon's time with its state folder; says whether the last one ended uncleanly.

    This one does so if the body raises. Raises InUse, OSError.
    """
    here = Running.take(state)
    try:
        here.starts()
        yield here.unclean
        _note_end(here)
    finally:
        here.close()


def _note_end(here: Running) -> None:
    """A file system that writes beside what it replaces (btrfs, ZFS) may have no room for it: the next start
    looks more closely then, that is all."""
    try:
        here.ended()
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        log.warning("no room to note that the daemon stopped", error=str(error))


def _owned(fd: int, state: Path) -> None:
    """What root has made while no daemon ran is the daemon's, and its name lasts."""
    if os.fstat(fd).st_size == 0:
        owner = state.stat()
        if os.geteuid() == 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        os.pwrite(fd, STOPPED, 0)
        sync_file(fd, NAME)
        sync_folder(state)
