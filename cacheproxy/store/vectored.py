"""Many buffers, one write."""

from __future__ import annotations

import os
from collections.abc import Sequence

IOV_MAX = 1024
"""Buffers that Linux takes in one writev."""


def write_at(fd: int, chunks: Sequence[bytes | memoryview], offset: int) -> None:
    """Write all of the chunks, one behind the other, from `offset`. Raises OSError as the system gave it."""
    rest = [memoryview(chunk) for chunk in chunks if len(chunk)]
    while rest:
        written = os.pwritev(fd, rest[:IOV_MAX], offset)
        offset += written
        rest = _after(rest, written)


def _after(chunks: list[memoryview], written: int) -> list[memoryview]:
    """What is left of the chunks once so many bytes of them are written."""
    for index, chunk in enumerate(chunks):
        if written < len(chunk):
            return [chunk[written:], *chunks[index + 1 :]]
        written -= len(chunk)
    return []
