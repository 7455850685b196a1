"""The entries of a tar, read one after the other: strictly, and with limits, since anybody may have made it.

`tarfile` reads what a header announces of names and comments into memory, however much that is; here it is
64 KiB at most. Nothing is ever unpacked: entries are places in the file.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from cacheproxy.core.layout import LayoutInvalid

BLOCK = 512
MOST_ENTRIES = 200_000
LARGEST_RECORD = 64 << 10
"""Bytes of a long name, or of pax headers."""
STEP = 1 << 20
RATIO = 200
"""Layers are compressed already, or are programs: what is this many times smaller than it says is a bomb."""
FREE = 1 << 30
"""Bytes for which nobody asks."""

_REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_FOLDER = tarfile.DIRTYPE


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the tar."""

    name: str
    """Relative, with neither "." nor ".." in it."""
    offset: int
    """Of its first byte."""
    size: int


class Source(Protocol):
    """A file that is read forwards; backwards costs as much as from the beginning."""

    def read(self, count: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...


class Inflating:
    """What a gzip file holds. Raises LayoutInvalid for what is cut off, damaged, or a bomb."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._file = gzip.GzipFile(fileobj=packed)

    def read(self, count: int, /) -> bytes:
        try:
            data = self._file.read(count)
        except (EOFError, OSError, zlib.error) as error:
            raise LayoutInvalid(f"its compressed data is damaged: {error}") from error
        if self._file.tell() > FREE and self._file.tell() > RATIO * self._packed.tell():
            raise LayoutInvalid(f"it becomes more than {RATIO} times as large when it is unpacked")
        return data

    def seek(self, offset: int, /) -> int:
        if offset < self._file.tell():
            self._file.seek(0)
        while (left := offset - self._file.tell()) > 0 and self.read(min(left, STEP)):
            pass
        return self._file.tell()


def entries(source: Source) -> Iterator[Entry]:
    """The files in it. Raises LayoutInvalid for what is no tar, is cut off, or leads out of it."""
    offset, name, size, count = 0, "", -1, 0
    while (header := _header(source, offset)) is not None:
        count += 1
        if count > MOST_ENTRIES:
            raise LayoutInvalid(f"it has more than {MOST_ENTRIES} entries")
        offset += BLOCK
        kind, length = header.type, header.size
        if kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            record = _record(source, offset, length)
            if kind == tarfile.XHDTYPE:
                name, size = _pax(record, name, size)
            elif kind == tarfile.GNUTYPE_LONGNAME:
                name = record.rstrip(b"\0").decode("utf-8", "surrogateescape")
        else:
            length = size if size >= 0 else length
            if kind in _REGULAR:
                _reach(source, offset, length)
            path = _path(name or header.name)
            if kind in _REGULAR:
                yield Entry(path, offset, length)
            elif kind != _FOLDER:
                raise LayoutInvalid(f"its entry {path[:200]!a} is neither a file nor a folder")
            else:
                length = 0
            name, size = "", -1
        offset += -(-length // BLOCK) * BLOCK


def _header(source: Source, offset: int) -> tarfile.TarInfo | None:
    """None: the end."""
    source.seek(offset)
    block = source.read(BLOCK)
    if not block and offset:
        return None  # without the two empty blocks that end it, as some write it
    if block == bytes(BLOCK):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        said = "it is no tar" if not offset else "it is damaged, or cut off"
        raise LayoutInvalid(f"{said}: {error}") from error
    if header.size < 0:
        raise LayoutInvalid("an entry has less than no bytes")
    return header


def _record(source: Source, offset: int, size: int) -> bytes:
    if size > LARGEST_RECORD:
        raise LayoutInvalid(f"it has a name, or comments, of {size} bytes")
    source.seek(offset)
    record = source.read(size)
    if len(record) != size:
        raise LayoutInvalid("it is cut off")
    return record


def _reach(source: Source, offset: int, size: int) -> None:
    """That the entry is there to its last byte."""
    if size:
        source.seek(offset + size - 1)
        if not source.read(1):
            raise LayoutInvalid("it is cut off")


def _pax(record: bytes, name: str, size: int) -> tuple[str, int]:
    """Name and size that an extended header says, or those from before (POSIX, "pax Extended Header")."""
    while record:
        length, blank, _ = record.partition(b" ")
        if not blank or not length.isdigit() or not len(length) + 1 < int(length[:8]) <= len(record):
            raise LayoutInvalid("its extended headers are damaged")
        line, record = record[len(length) + 1 : int(length)], record[int(length) :]
        key, _, value = line.removesuffix(b"\n").partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit() and len(value) < 19:
            size = int(value)
        elif key.startswith(b"GNU.sparse."):
            raise LayoutInvalid("it has sparse files")
    return name, size


def _path(name: str) -> str:
    """Raises LayoutInvalid for one that leads out of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise LayoutInvalid(f"the path {name[:200]!a} leads out of it")
    return "/".join(parts)
