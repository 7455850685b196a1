"""Where a request's body ends (RFC 9112 sections 6 and 7), read strictly.

h11 is lenient here where two servers in a row may differ: blanks after a chunk's size, sizes beyond 64 bits,
bare line ends in extensions and trailers. A reader of our own is shorter than the checks around it would be.
"""

from __future__ import annotations

import re

from cacheproxy.edge import prefilter
from cacheproxy.edge.message import BodyBroken

_LONGEST_LINE = 4096
_MOST_TRAILERS = 32
_size = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~]*)?\r\n").fullmatch


class Counted:
    """A body with a Content-Length."""

    trailers = 0

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def whole(self) -> bool:
        return not self._left

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """(what of `data` belongs to the body, what is left of `data`)."""
        part, rest = data[: self._left], data[self._left :]
        self._left -= len(part)
        return part, rest


class Chunked:
    """A chunked body. Extensions and trailers are dropped."""

    def __init__(self) -> None:
        self.whole = False
        self.trailers = 0
        self._left = 0
        """Bytes of the chunk that are still to come."""
        self._next = self._size

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """As above; what is left while the body is not whole belongs before the next bytes.

        Raises BodyBroken.
        """
        parts: list[bytes] = []
        while data and not self.whole:
            if self._left:
                parts.append(data[: self._left])
                data = data[self._left :]
                self._left -= len(parts[-1])
                continue
            end = data.find(b"\n", 0, _LONGEST_LINE) + 1
            if not end:
                if len(data) >= _LONGEST_LINE:
                    raise BodyBroken("a line of the chunked body is too long")
                break
            self._next(data[:end])
            data = data[end:]
        return b"".join(parts), data

    def _size(self, line: bytes) -> None:
        match = _size(line)
        if match is None:
            raise BodyBroken("a chunk's size is malformed")
        self._left = int(match[1], 16)
        self._next = self._footer if self._left else self._trailer

    def _footer(self, line: bytes) -> None:
        if line != b"\r\n":
            raise BodyBroken("a chunk does not end where it should")
        self._next = self._size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.whole = True
            return
        self.trailers += 1
        if self.trailers > _MOST_TRAILERS or not prefilter.is_field(line):
            raise BodyBroken("a trailer is malformed, or there are too many")
