r"""The journal of a partial file: which of its bytes are known to be on the disk. Pure text in, text out.

    <checksum> cacheproxy-partial 1 sha256:<hex> <size>\n
    <checksum> <start> <stop>\n
    <checksum> etag <address> <repository> "<etag>"\n
    ...

Runs, and by which ETag those who sent them know the blob; the last line of an origin counts. A line is
written after the sync of the bytes it names, so any prefix of a journal is true. The checksum (CRC-32, eight
hex digits) runs over the line's text and the checksum before it: a torn, damaged or foreign line ends the
journal there, and lines of another journal never fit behind this one's. So does a line of a kind that is not
known here: to a version from before there were ETags, this is a shorter journal.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cacheproxy.core.digest import Digest
from cacheproxy.core.intervals import Intervals

LIMIT = 8 << 20
"""Bytes of a journal worth reading: a quarter of a million runs. A longer one is not ours."""

_LINE = re.compile(rb"([0-9a-f]{8}) ([\x20-\x7e]+)")
_RUN = re.compile(rb"([0-9]{1,18}) ([0-9]{1,18})")
_ETAG = re.compile(rb'etag ([\x21-\x7e]{1,1024} [\x21-\x7e]{1,256}) ("[\x21\x23-\x7e]{1,256}")')


class Replay(NamedTuple):
    intervals: Intervals
    length: int
    """Bytes of the journal that are good: the next line goes there."""
    checksum: int
    """Of the last good line."""
    etags: dict[str, str]
    """By address and repository, with a blank between."""


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


def etag_lines(etags: Mapping[str, str], checksum: int) -> tuple[bytes, int]:
    """The same for ETags; those that do not look like any are left out."""
    text = bytearray()
    for origin, etag in etags.items():
        told = f"etag {origin} {etag}".encode("ascii", "replace")
        if _ETAG.fullmatch(told):
            line, checksum = _line(told, checksum)
            text += line
    return bytes(text), checksum


def replay(text: bytes, digest: Digest, size: int) -> Replay | None:
    """What the journal promises of a blob of that digest and size; None when it is not about that blob."""
    first, checksum = opening(digest, size)
    if not text.startswith(first):
        return None
    state = Replay(Intervals(), len(first), checksum, {})
    while (end := text.find(b"\n", state.length)) >= 0:
        told = _checked(text[state.length : end], state.checksum)
        if told is None or not _add(told, size, state):
            break
        state = state._replace(length=end + 1, checksum=zlib.crc32(told, state.checksum))
    return state


def _title(digest: Digest, size: int) -> bytes:
    return b"cacheproxy-partial 1 %s %d" % (digest.encode("ascii"), size)


def _line(text: bytes, checksum: int) -> tuple[bytes, int]:
    checksum = zlib.crc32(text, checksum)
    return b"%08x %s\n" % (checksum, text), checksum


def _checked(line: bytes, checksum: int) -> bytes | None:
    """The text of a line; None when it does not belong behind the line of `checksum`."""
    fields = _LINE.fullmatch(line)
    return fields[2] if fields is not None and int(fields[1], 16) == zlib.crc32(fields[2], checksum) else None


def _add(told: bytes, size: int, state: Replay) -> bool:
    """Note what a line says. False: it makes no sense."""
    if run := _RUN.fullmatch(told):
        start, stop = int(run[1]), int(run[2])
        if not start < stop <= size:
            return False
        state.intervals.add(start, stop)
    elif etag := _ETAG.fullmatch(told):
        state.etags[etag[1].decode("ascii")] = etag[2].decode("ascii")
    else:
        return False
    return True
