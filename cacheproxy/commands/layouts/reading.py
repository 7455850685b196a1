"""An image layout that is somewhere: a folder, or a tar, compressed or not. Only read, and never unpacked."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from cacheproxy.commands.layouts.tar import STEP, Entry, Inflating, Source, entries
from cacheproxy.core.digest import Digest
from cacheproxy.core.layout import (
    INDEX,
    MARKER,
    MAX_INDEX,
    Index,
    LayoutInvalid,
    blob_path,
    check_marker,
    digest_at,
)
from cacheproxy.core.manifest import MAX_MANIFEST, ManifestInvalid
from cacheproxy.core.tree import Tree

PIPE = "-"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Layout(Protocol):
    """Raises LayoutInvalid and OSError."""

    index: bytes
    """index.json, verbatim."""

    def size(self, digest: Digest) -> int | None:
        """Of a blob; None: it is not in it."""
        ...

    def place(self, digest: Digest) -> int:
        """Where it is: what is read in this order is read forwards."""
        ...

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Its bytes, whether they are its own or not."""
        ...


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = root
        check_marker(self._small(MARKER))
        self.index = self._small(INDEX)

    def size(self, digest: Digest) -> int | None:
        try:
            found = (self._root / blob_path(digest)).lstat()
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def place(self, digest: Digest) -> int:
        return 0

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        with self._open(blob_path(digest)) as file:
            while chunk := file.read(STEP):
                yield chunk

    def _open(self, name: str) -> BinaryIO:
        """Not what a link leads to, and nothing that would be waited for."""
        fd = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise LayoutInvalid(f"{name} is no file")
        return os.fdopen(fd, "rb", buffering=0)

    def _small(self, name: str) -> bytes:
        try:
            with self._open(name) as file:
                return file.read(MAX_INDEX + 1)
        except FileNotFoundError:
            raise LayoutInvalid(f"it is no image layout: it has no {name}") from None


class Archive:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._blobs: dict[Digest, Entry] = {}
        found: dict[str, bytes] = {}
        for entry in entries(source):
            digest = digest_at(entry.name)
            if digest is not None:
                self._blobs.setdefault(digest, entry)
            elif entry.name in (MARKER, INDEX):
                if entry.name in found:
                    raise LayoutInvalid(f"it has two {entry.name}")
                found[entry.name] = self._small(entry)
        for name in (MARKER, INDEX):
            if name not in found:
                raise LayoutInvalid(f"it is no image layout: it has no {name} at its top")
        check_marker(found[MARKER])
        self.index = found[INDEX]

    def size(self, digest: Digest) -> int | None:
        entry = self._blobs.get(digest)
        return None if entry is None else entry.size

    def place(self, digest: Digest) -> int:
        entry = self._blobs.get(digest)
        return 0 if entry is None else entry.offset

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        entry = self._blobs[digest]
        left = entry.size
        self._source.seek(entry.offset)
        while left:
            chunk = self._source.read(min(left, STEP))
            if not chunk:
                raise LayoutInvalid("it is cut off")
            left -= len(chunk)
            yield chunk

    def _small(self, entry: Entry) -> bytes:
        if entry.size > MAX_INDEX:
            raise LayoutInvalid(f"its {entry.name} is larger than {MAX_INDEX} bytes")
        self._source.seek(entry.offset)
        return self._source.read(entry.size)


@contextmanager
def opened(place: str) -> Iterator[Layout]:
    """The layout at a path, or with "-" what comes by standard input. Raises LayoutInvalid, OSError."""
    with ExitStack() as stack:
        if place != PIPE and Path(place).is_dir():
            yield Folder(Path(place))
            return
        if place == PIPE:  # through a file: others write their index last
            file: BinaryIO = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(sys.stdin.buffer, file, STEP)
        else:
            file = stack.enter_context(Path(place).open("rb"))
        yield Archive(_unpacked(file))


def _unpacked(file: BinaryIO) -> Source:
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if magic == ZSTD:
        raise LayoutInvalid("it is compressed by zstd: unpack it first (zstd -d), or use gzip")
    return Inflating(file) if magic.startswith(GZIP) else file


def tree_of(layout: Layout, index: Index) -> Tree:
    """All that its images consist of.

    Raises LayoutInvalid for manifests that are not in it, or not what they should be.
    """
    tree = Tree(absent=set(index.absent))
    waiting = {root.digest: root.media_type for root in index.roots}
    while waiting:
        below: dict[Digest, str] = {}
        lacking = [digest for digest in waiting if layout.size(digest) is None]
        if lacking:
            raise LayoutInvalid(f"manifests are missing: {listed(lacking)}")
        for digest in sorted(waiting, key=layout.place):
            try:
                below |= tree.add(digest, manifest_in(layout, digest), waiting[digest])
            except ManifestInvalid as error:
                raise LayoutInvalid(str(error)) from None
        known = tree.nodes.keys() | tree.absent
        waiting = {digest: kind for digest, kind in below.items() if digest not in known}
    return tree


def manifest_in(layout: Layout, digest: Digest) -> bytes:
    size = layout.size(digest)
    if size is None or size > MAX_MANIFEST:
        raise LayoutInvalid(f"the manifest {digest} is larger than {MAX_MANIFEST} bytes")
    return b"".join(layout.chunks(digest))


def listed(digests: Iterable[Digest]) -> str:
    """The first of them, for a message."""
    found = sorted(digests)
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return ", ".join(found[:20]) + more
