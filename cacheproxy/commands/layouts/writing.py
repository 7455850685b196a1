"""An image layout as a tar, entry by entry: into a file that is there whole or not at all, or a pipe."""

from __future__ import annotations

import os
import secrets
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from cacheproxy.commands.layouts.reading import PIPE
from cacheproxy.commands.layouts.tar import BLOCK


class TarWriter:
    """Raises OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """An entry of exactly so many bytes. The same bytes give the same entry: it has no time, no owner."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        self._file.write(header.tobuf(tarfile.PAX_FORMAT))
        for chunk in chunks:
            self._file.write(chunk)
        self._file.write(bytes(-size % BLOCK))

    def end(self) -> None:
        self._file.write(bytes(2 * BLOCK))


@contextmanager
def written(place: str) -> Iterator[BinaryIO]:
    """A file to write, which gets its name once it is whole and on the disk; "-" is standard output.

    Raises OSError.
    """
    if place == PIPE:
        if sys.stdout.isatty():
            raise click.UsageError("standard output is a terminal: redirect it, or name a file")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(place)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
