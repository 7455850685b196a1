"""Byte ranges of a blob: Range, Content-Range, multipart/byteranges (RFC 9110, sections 14.1 to 14.6)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cacheproxy.core.blob import Span
from cacheproxy.core.errors import OCIError

MAX_RANGES = 64
"""Per request: above what any lazy puller sends, below what makes the framing cost more than the bytes."""

_RANGE = re.compile(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*")
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]+)-([0-9]+)/([0-9]+|\*)")

_BEYOND = 1 << 64
"""Stands for any number of more digits than a size has: int() of thousands of them raises."""


class Unsatisfiable(OCIError):
    """416, with the size in Content-Range."""

    def __init__(self, size: int, message: str) -> None:
        super().__init__("RANGE_INVALID", message, headers=(("Content-Range", f"bytes */{size}"),))


def parse_range(header: str, size: int) -> tuple[Span, ...] | None:
    """The spans that a Range header asks of `size` bytes, in the client's order; None: answer all (200).

    None is for what RFC 9110 lets a server ignore: another unit, what is not a list of ranges, more bytes in
    all than the whole has, any range of an empty blob. Of several ranges those past the end are left out.
    Raises Unsatisfiable when none is left, a range ends before it starts, or there are more than MAX_RANGES.
    """
    unit, _, listed = header.partition("=")
    if unit.strip().lower() != "bytes" or size == 0:
        return None
    if listed.count(",") >= MAX_RANGES:
        raise Unsatisfiable(size, f"more than {MAX_RANGES} ranges")
    matches = [_RANGE.fullmatch(part) for part in listed.split(",") if part.strip(" \t")]
    texts = [match.groups() for match in matches if match is not None]
    if len(texts) < len(matches) or not texts or ("", "") in texts:
        return None
    spans = [span for first, last in texts if (span := _span(first, last, size)) is not None]
    if not spans:
        raise Unsatisfiable(size, f"the blob has {size} bytes: none of them is in the range")
    if sum(span.length for span in spans) > size:
        return None  # overlapping ranges multiply what one request costs
    return tuple(spans)


def _span(first: str, last: str, size: int) -> Span | None:
    """None: in order, and all of it past the end."""
    if not first:
        length = min(_number(last), size)
        return Span(size - length, size, bounded=False) if length else None
    start = _number(first)
    if not last:
        return Span(start, size, bounded=False) if start < size else None
    end = _number(last)
    if end < start:
        raise Unsatisfiable(size, "the range ends before it starts")
    return Span(start, min(end + 1, size), bounded=True) if start < size else None


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) < 20 else _BEYOND


def content_range(span: Span, size: int) -> str:
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def parse_content_range(header: str) -> tuple[int, int, int | None] | None:
    """(start, stop, total) of a 206's Content-Range, half-open, total None for "*"; None: no such thing."""
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        return None
    start, stop = _number(match[1]), _number(match[2]) + 1
    total = None if match[3] == "*" else _number(match[3])
    if start >= stop or stop >= _BEYOND or (total is not None and stop > total):
        return None
    return start, stop, total


def multipart(
    spans: Sequence[Span], size: int, media_type: str, boundary: str
) -> tuple[tuple[bytes | Span, ...], int]:
    """The parts of a multipart/byteranges body (RFC 9110, section 14.6), and their bytes together."""
    parts: list[bytes | Span] = []
    for span in spans:
        fields = f"Content-Type: {media_type}\r\nContent-Range: {content_range(span, size)}\r\n"
        lead = "\r\n" if parts else ""
        parts += [f"{lead}--{boundary}\r\n{fields}\r\n".encode("ascii"), span]
    parts.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return tuple(parts), sum(part.length if isinstance(part, Span) else len(part) for part in parts)
