"""The file of a key that only this node has: made once, with a random key, for its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cacheproxy.store.durable import FILE_MODE, remove, sync_file, sync_folder

LARGEST = 1024
"""Bytes that are looked at."""


def read_or_make(path: Path) -> str:
    """The key as text. Blocks. Raises OSError, StoreSuspect, and PermissionError for one that others may use.

    Nobody else makes it meanwhile: one daemon runs with a state folder.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        _make(path)
        return _read(path)


def _read(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o077:
            said = f"others than its owner may use it (mode {mode:04o}): chmod 600 {path}"
            raise PermissionError(None, said, str(path))
        return os.read(fd, LARGEST).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def _make(path: Path) -> None:
    """Under its name it is whole: a half of a key would be another key."""
    new = path.with_name(f"{path.name}.new")
    remove(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(fd, f"{secrets.token_hex(32)}\n".encode())
        sync_file(fd, str(new))
    finally:
        os.close(fd)
    new.rename(path)
    sync_folder(path.parent)
