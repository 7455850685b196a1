r"""The journal of a partial file: which of its bytes are known to be on the disk. Pure text in, text out.

    <checksum> cacheproxy-partial 1 sha256:<hex> <size>\n
    <checksum> <start> <stop>\n
    ...

A line is written after the sync of the bytes it names, so any prefix of a journal is true. The checksum
(CRC-32, eight hex digits) runs over the line's text and the checksum before it: a torn, damaged or foreign
line ends the journal there, and lines of another journal never fit behind this one's.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from cacheproxy.core.digest import Digest
from cacheproxy.core.intervals import Intervals

LIMIT = 8 << 20
"""Bytes of a journal worth reading: a quarter of a million runs. A longer one is not ours."""

_LINE = re.compile(rb"([0-9a-f]{8}) (([0-9]{1,18}) ([0-9]{1,18}))")


class Replay(NamedTuple):
    intervals: Intervals
    length: int
    """Bytes of the journal that are good: the next line goes there."""
    checksum: int
    """Of the last good line."""


def opening(digest: Digest, size: int) -> tuple[bytes, int]:
    """The first line, and its checksum."""
    return _line(_title(digest, size), 0)


def lines(runs: Iterable[tuple[int, int]], checksum: int) -> tuple[bytes, int]:
    """Lines for more runs behind the line of that checksum, and the checksum of the last."""
    text = bytearray()
    for start, stop in runs:
        line, checksum = _line(b"%d %d" % (start, stop), checksum)
        text += line
    return bytes(text), checksum


def replay(text: bytes, digest: Digest, size: int) -> Replay | None:
    """What the journal promises of a blob of that digest and size; None when it is not about that blob."""
    first, checksum = opening(digest, size)
    if not text.startswith(first):
        return None
    intervals, at = Intervals(), len(first)
    while (end := text.find(b"\n", at)) >= 0:
        run = _run(text[at:end], checksum, size)
        if run is None:
            break
        start, stop, checksum = run
        intervals.add(start, stop)
        at = end + 1
    return Replay(intervals, at, checksum)


def _title(digest: Digest, size: int) -> bytes:
    return b"cacheproxy-partial 1 %s %d" % (digest.encode("ascii"), size)


def _line(text: bytes, checksum: int) -> tuple[bytes, int]:
    checksum = zlib.crc32(text, checksum)
    return b"%08x %s\n" % (checksum, text), checksum


def _run(line: bytes, checksum: int, size: int) -> tuple[int, int, int] | None:
    """Start, stop and checksum of a line; None when it does not belong behind the line of `checksum`."""
    fields = _LINE.fullmatch(line)
    if fields is None or int(fields[1], 16) != zlib.crc32(fields[2], checksum):
        return None
    start, stop = int(fields[3]), int(fields[4])
    return (start, stop, int(fields[1], 16)) if start < stop <= size else None
