"""The three calls that make bytes last, and what their failure means."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cacheproxy.store.errors import StoreSuspect

FOLDER_MODE = 0o700
FILE_MODE = 0o600

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A full disk is an everyday matter, and says nothing about the disk's honesty."""

UNREADABLE = frozenset({errno.EIO, errno.ENODATA, errno.EBADMSG, errno.EUCLEAN})
"""What a file system answers that cannot read, or does not trust, the bytes of one file. Other errors say
nothing about the bytes.
"""


@contextmanager
def lasting(what: str) -> Iterator[None]:
    """Raise StoreSuspect for an OSError in the body; want of space passes as it is."""
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise
        raise StoreSuspect(error.errno, f"{what}: {error.strerror}") from error


def sync_file(fd: int, what: str) -> None:
    """The file's bytes, and as much of its inode as is needed to read them."""
    with lasting(f"cannot sync {what}"):
        os.fdatasync(fd)


def sync_folder(folder: Path) -> None:
    """The names in the folder: without it a new or renamed file may be gone, or back under its old name."""
    with lasting(f"cannot sync the folder {folder}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def make_folder(folder: Path) -> None:
    """Make the folder and what is missing above it, each name durable in its parent before the next is
    made."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    # Somebody else may have made it meanwhile; whether its name is durable yet, only our own sync tells.
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)


def remove(path: Path) -> bool:
    """Unlink; False when there was nothing."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
