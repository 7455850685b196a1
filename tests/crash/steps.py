"""The daemon's storage calls, counted: at one of them it dies, or that one fails, or from there on the disk
is full.

Armed in the daemon's own process, before it starts. What SQLite does is counted too, by a VFS of apsw.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from cacheproxy.registry import fillfile

FILES = {
    "pwritev": True,
    "write": True,
    "fdatasync": True,
    "mkdir": True,
    "open": True,
    "fsync": False,
    "ftruncate": False,
    "rename": False,
    "unlink": False,
}
"""Functions of `os` that change what is on the disk, and whether they need room."""

CHECKPOINT = {"CHECKPOINT_SECONDS": 0.05, "CHECKPOINT_BYTES": 64 << 10}
"""So that the small blobs of these tests have journals, too."""


class Steps:
    def __init__(self, kill_at: int, full_at: int, fail_at: int, full: Path, trace: Path | None) -> None:
        self._kill_at = kill_at
        self._full_at = full_at
        self._fail_at = fail_at
        self._full = full
        self._trace = trace
        self._count = 0
        self._lock = threading.Lock()

    def step(self, name: str, needs_room: bool) -> int:
        """What it fails with, as an errno; 0: it does not. Returns only when the process may live on."""
        with self._lock:
            self._count += 1
            if self._trace is not None:
                with self._trace.open("a") as file:
                    file.write(f"{self._count} {name}\n")
            if self._count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self._count in (self._full_at, self._fail_at):
                self._full.open("wb").close()
            if self._count == self._fail_at:
                return errno.EIO
            no_room = needs_room and self._count >= self._full_at > 0 and self._full.exists()
            return errno.ENOSPC if no_room else 0


def arm(kill_at: int = 0, full_at: int = 0, fail_at: int = 0, full: str = "", trace: str = "") -> None:
    """Die before the call of one number; make the file `full` at the other, with no room while it is there;
    or let the call of one number fail with EIO, and make that file, too.

    `trace` is a file that the names of all calls go to.
    """
    steps = Steps(kill_at, full_at, fail_at, Path(full), Path(trace) if trace else None)
    for name, needs_room in FILES.items():
        setattr(os, name, _counted(steps, name, needs_room))
    for name, value in CHECKPOINT.items():
        setattr(fillfile, name, value)
    _vfs(steps)


def _counted(steps: Steps, name: str, needs_room: bool) -> Callable[..., Any]:
    real = getattr(os, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        if _counts(name, arguments) and (failure := steps.step(name, needs_room)):
            raise OSError(failure, os.strerror(failure))
        return real(*arguments, **options)

    return counted


def _counts(name: str, arguments: tuple[Any, ...]) -> bool:
    if name == "open":
        return bool(arguments[1] & os.O_CREAT)
    return name != "write" or arguments[0] > 2


def _vfs(steps: Steps) -> None:
    def step(name: str, needs_room: bool) -> None:
        if failure := steps.step(f"sqlite {name}", needs_room):
            kind, code = _SQLITE[failure]
            error = kind(os.strerror(failure))
            vars(error).update(result=code & 0xFF, extendedresult=code)  # as SQLite's own
            raise error

    class File(apsw.VFSFile):
        def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
            step("write", True)
            super().xWrite(data, offset)

        def xSync(self, flags: int) -> None:  # noqa: N802
            step("sync", False)
            super().xSync(flags)

        def xTruncate(self, size: int) -> None:  # noqa: N802
            step("truncate", False)
            super().xTruncate(size)

    class Disk(apsw.VFS):
        def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return File("unix", name, flags)

        def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
            step("delete", False)
            super().xDelete(name, sync)

    _kept.append(Disk("counted", "unix", makedefault=True))


_SQLITE = {
    errno.ENOSPC: (apsw.FullError, apsw.SQLITE_FULL),
    errno.EIO: (apsw.IOError, apsw.SQLITE_IOERR_WRITE),
}
"""How its VFS says so."""

_kept: list[apsw.VFS] = []
"""SQLite does not keep them alive."""
