"""Whose bytes a store's are: a mark beside them names the installation whose rows know of them.

What no row names is swept. So rows of one installation over the bytes of another would end in an empty
store, as would an empty database in place of one that was lost; and a disk that is not mounted looks as if
all bytes were gone. A start finds each of them here, before anything is served or removed.

    <root>/cacheproxy-store, or the key <prefix>/cacheproxy-store: the name in the row of `installation`

The name is a row first, then the mark is written, then the row says so: a kill in between is made good by the
next start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial as bind
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import trio

from cacheproxy.core.digest import Digest
from cacheproxy.store.database import Database, Tx, settle
from cacheproxy.store.durable import FILE_MODE, sync_file, sync_folder
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreNotOurs

if TYPE_CHECKING:
    from cacheproxy.store.bucket import Bucket

T = TypeVar("T")

NAME = "cacheproxy-store"
LONGEST = 256
"""Bytes of a mark that are read: a name of ours has 32."""

FEW = 8
"""Blobs that are looked for where nothing was ever marked: an installation of an earlier version."""

HELD = "SELECT name, marked FROM installation"
SOME = "SELECT digest, location, size FROM blob WHERE generation > 0 LIMIT :n"
NAMED = "INSERT INTO installation (one, name, marked) VALUES (1, :name, 0) ON CONFLICT (one) DO NOTHING"
MARKED = "UPDATE installation SET marked = 1"


class Mark(Protocol):
    """Both methods block, and raise OSError; a bucket's StoreUnreachable is one."""

    place: str
    """For messages."""

    def read(self) -> str | None:
        """None: there is none."""
        ...

    def write(self, name: str) -> None: ...


class FolderMark:
    def __init__(self, root: Path) -> None:
        self._path = root / NAME
        self.place = str(self._path)

    def read(self) -> str | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return _name(file.read(LONGEST))

    def write(self, name: str) -> None:
        """All of it or nothing, durably."""
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            os.write(fd, f"{name}\n".encode())
            sync_file(fd, self.place)
        finally:
            os.close(fd)
        new.rename(self._path)
        sync_folder(self._path.parent)


class BucketMark:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.place = f"{bucket.name}/{NAME}"

    def read(self) -> str | None:
        size = self._bucket.size(NAME)
        piece = self._bucket.get(NAME, 0, min(size, LONGEST)) if size else None
        return None if piece is None else _name(bytes(piece.data))

    def write(self, name: str) -> None:
        data = f"{name}\n".encode()
        self._bucket.put(NAME, len(data), iter([data]))


class Bytes(Protocol):
    def confirm(self, digest: Digest, location: str, size: int) -> None:
        """Blocking. Raises BlobMissing, OSError."""
        ...


class Rows(Protocol):
    async def scan(self, fn: Callable[[Tx], T]) -> T: ...


class _Held(NamedTuple):
    """What the rows say."""

    name: str
    """"": none yet."""
    marked: bool
    blobs: Sequence[tuple[Digest, str, int]]
    """Some of those that are stored."""


async def claim(database: Database, content: Bytes, mark: Mark) -> None:
    """Mark the store as that of these rows, or find it marked so.

    Raises StoreNotOurs; OSError and StoreError when it cannot be told.
    """
    held = await database.scan(_held)
    if not held.name:
        await settle(database, lambda tx: tx.run(NAMED, name=secrets.token_hex(16)))
        held = await database.scan(_held)
    found = await _judged(held, mark)
    if found is None:
        if held.blobs and not await trio.to_thread.run_sync(_any_there, content, held.blobs):
            raise _missing(held, mark)
        await trio.to_thread.run_sync(mark.write, held.name)
    if not held.marked:
        await settle(database, lambda tx: tx.run(MARKED))


async def demand_ours(rows: Rows, mark: Mark) -> None:
    """Only look. Raises as `claim` does."""
    await _judged(await rows.scan(_held), mark)


async def _judged(held: _Held, mark: Mark) -> str | None:
    """The mark, if there is one, and it may be that there is none. Raises StoreNotOurs."""
    found = await trio.to_thread.run_sync(mark.read)
    if found is not None and found != held.name:
        raise StoreNotOurs(
            f"{mark.place} says that the blobs there are those of another installation ({found}), and this"
            f" database is of {held.name or 'none yet'}: it would remove them all. Give this one a folder or"
            " prefix of its own in storage.blobs, or use the other one's database; if that is lost for good,"
            " remove the mark"
        )
    if found is None and held.marked and held.blobs:
        raise _missing(held, mark)
    return found


def _missing(held: _Held, mark: Mark) -> StoreNotOurs:
    return StoreNotOurs(
        f"the database knows of stored blobs, and {mark.place} is not there: is the disk mounted, or is"
        " storage.blobs another place than before? If those blobs are lost for good, write"
        f" {held.name} there: they are fetched again when somebody asks for them"
    )


def _held(tx: Tx) -> _Held:
    name, marked = tx.one(HELD) or ("", 0)
    blobs = [(Digest.parse(digest), location, size) for digest, location, size in tx.all(SOME, n=FEW)]
    return _Held(name, bool(marked), blobs)


def _any_there(content: Bytes, blobs: Sequence[tuple[Digest, str, int]]) -> bool:
    return any(_is_there(bind(content.confirm, *blob)) for blob in blobs)


def _is_there(confirm: Callable[[], None]) -> bool:
    try:
        confirm()
    except BlobDamaged:
        return True
    except BlobMissing:
        return False
    return True


def _name(data: bytes) -> str | None:
    """Whatever a person wrote there: it is only compared and shown. None: nothing."""
    return data.decode(errors="replace").strip() or None
