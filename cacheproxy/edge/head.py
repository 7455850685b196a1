"""Status lines and headers, as bytes. Framing (Content-Length, Connection) and Date are the edge's own."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_BODILESS = (204, 304)
"""Answers without body and without Content-Length (RFC 9110 8.6)."""
_FRAMING = frozenset(("connection", "content-length", "date", "keep-alive", "transfer-encoding"))


class Ending:
    """The last lines of every head: Date, made once a second, and whether the connection goes on."""

    def __init__(self) -> None:
        self._second = -1
        self._keep = b""
        self._close = b""

    def lines(self, now: float, close: bool) -> bytes:
        """`now` is time.time(). Ends with the blank line."""
        second = int(now)
        if second != self._second:
            date = b"Date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"
            self._second, self._keep, self._close = (
                second,
                date + b"\r\n",
                date + b"Connection: close\r\n\r\n",
            )
        return self._close if close else self._keep


def bodiless(status: int) -> bool:
    return status in _BODILESS


def render(status: int, headers: Sequence[tuple[str, str]], length: int) -> bytes:
    """Everything before `Ending.lines`. ValueError: a header would break its line, or is the edge's own."""
    lines = [_LINES.get(status) or f"HTTP/1.1 {status} "]
    lines += [f"{name}: {value}" for name, value in headers]
    if status not in _BODILESS:
        lines.append(f"Content-Length: {length}")
    text = "\r\n".join(lines) + "\r\n"
    # A value from an upstream or a manifest must not become a header, or a response, of its own.
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        raise ValueError(f"a header of this {status} response holds a line break")
    if any(name.lower() in _FRAMING for name, _ in headers):
        raise ValueError(f"a header of this {status} response belongs to the edge")
    return text.encode("latin-1")
