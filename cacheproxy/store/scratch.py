"""Expendable entries with an expiry (what an upstream does not have, lists it gave): diskcache, bytes only.

The stock diskcache runs code from a row that somebody planted in its database (mode 4: pickle;
CVE-2025-69872), and opens and unlinks the paths it finds there. `BytesDisk` believes nothing of a row but its
bytes.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import structlog
import trio

from cacheproxy.store.durable import FOLDER_MODE

log = structlog.get_logger()

SIZE_LIMIT = 64 << 20
"""Bytes of the database; what was stored longest ago goes first."""

LOCK_SECONDS = 0.05
"""How long a call waits for the database's lock before it does without: these entries are worth no more."""

_INLINE = 1
"""diskcache's mode for a value that is in the row itself."""

_SETTINGS: dict[str, Any] = {
    **diskcache.DEFAULT_SETTINGS,
    "size_limit": SIZE_LIMIT,
    "eviction_policy": "least-recently-stored",
    # A mapped file that somebody cuts short ends the process by SIGBUS.
    "sqlite_mmap_size": 0,
    # It may all be lost, so nothing waits for a sync.
    "sqlite_synchronous": 0,
}
"""All of them, for diskcache takes those we leave out from the database."""

_DAMAGE = (sqlite3.Error, OSError, ValueError, TypeError, KeyError, AttributeError, AssertionError)
"""What diskcache raises over a store that was damaged or tampered with."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """How diskcache keeps keys and values: text, and bytes inside the row. Raises ValueError for any other
    row."""

    def put(self, key: object) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError("keys are text")
        return key, True

    def get(self, key: object, raw: object) -> str:
        if type(key) is not str or not raw:
            raise ValueError("a key that is not text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, sqlite3.Binary]:
        del read, key
        if type(value) is not bytes:
            raise TypeError("values are bytes")
        # Size 0: it counts files, and the pages of the database are counted anyway.
        return 0, _INLINE, None, sqlite3.Binary(value)

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        del read
        if mode != _INLINE or filename is not None or type(value) is not bytes:
            raise ValueError("a value that is not bytes in its row")
        return value

    def remove(self, file_path: object) -> None:
        """There are no files: whatever path a row names is not ours to unlink."""


class Scratch:
    """A store that is damaged counts as empty, and the next `put` starts it afresh. Used from one loop."""

    def __init__(self, path: Path) -> None:
        """Blocking. `path` is a folder of its own: damaged, it is removed with all that is in it."""
        self._path = path
        self._turn = trio.Lock()
        self._cache = _open(path)

    def get(self, key: str) -> bytes | None:
        """Inline, some microseconds."""
        if self._cache is None:
            return None
        try:
            value: bytes | None = self._cache.get(key)
        except _DAMAGE as error:
            self._distrust(error)
            return None
        return value

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """Keep `value` for so long at most. It may be lost at any time, and the store's troubles are not
        raised."""
        await self._change(lambda cache: cache.set(key, value, expire=seconds))

    async def drop(self, key: str) -> None:
        """Forget it, if it is there."""
        await self._change(lambda cache: cache.delete(key))

    async def drop_all(self, prefix: str) -> None:
        """Forget every entry whose key begins so: looks at all keys."""
        await self._change(lambda cache: _drop_all(cache, prefix))

    def close(self) -> None:
        """What is there stays for the next time."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    async def _change(self, call: Callable[[diskcache.Cache], object]) -> None:
        async with self._turn:
            if self._cache is None:
                self._cache = await trio.to_thread.run_sync(_start_afresh, self._path)
            if self._cache is not None:
                error = await trio.to_thread.run_sync(_attempt, self._cache, call)
                if error is not None:
                    self._distrust(error)

    def _distrust(self, error: Exception) -> None:
        if _busy(error):
            return
        log.warning("scratch entries dropped", path=str(self._path), error=str(error))
        self.close()


def _drop_all(cache: diskcache.Cache, prefix: str) -> None:
    for key in [key for key in cache.iterkeys() if key.startswith(prefix)]:
        cache.delete(key)


def _open(path: Path) -> diskcache.Cache | None:
    """What is there, if it is in order; else a new one."""
    try:
        return _cache(path) if _in_order(path) else _start_afresh(path)
    except _DAMAGE:
        return _start_afresh(path)


def _start_afresh(path: Path) -> diskcache.Cache | None:
    """None when there can be none for now (the disk is full, a right is missing)."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return _cache(path)
    except _DAMAGE as error:
        log.warning("no scratch entries", path=str(path), error=str(error))
        return None


def _cache(path: Path) -> diskcache.Cache:
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    cache = diskcache.Cache(str(path), timeout=LOCK_SECONDS, disk=BytesDisk, **_SETTINGS)
    cache.close()  # the connection of this thread, which may not be the loop's
    return cache


def _in_order(path: Path) -> bool:
    """Whether the settings in the database are ours: diskcache makes attributes and pragmas of any that it
    finds."""
    database = path / diskcache.core.DBNAME
    if not database.exists():
        return True
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = dict(connection.execute("SELECT key, value FROM Settings"))
    return {key: value for key, value in found.items() if key not in diskcache.core.METADATA} == _SETTINGS


def _attempt(cache: diskcache.Cache, call: Callable[[diskcache.Cache], object]) -> Exception | None:
    """In a thread, whose connection is closed at once: nobody would later."""
    try:
        call(cache)
    except (*_DAMAGE, diskcache.Timeout) as error:
        return error
    finally:
        cache.close()
    return None


def _busy(error: Exception) -> bool:
    return isinstance(error, diskcache.Timeout) or "locked" in str(error)
