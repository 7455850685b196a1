"""What can go wrong at an upstream. Each function makes a `Fault`: a change to one answer."""

from __future__ import annotations

import gzip as gzip_module
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.origin.content import Bytes
from tests.origin.plan import End, Framing, Plan, Source
from tests.origin.seen import Seen

Fault = Callable[[Plan], None]
Match = Callable[[Seen], bool] | Mapping[str, str]


@dataclass(slots=True, eq=False)
class Rule:
    """One fault at work: whom it hits, how many it lets pass first, how often it hits (None: always)."""

    match: Match
    do: Fault
    times: int | None = None
    skip: int = 0
    hits: int = 0

    def takes(self, seen: Seen) -> bool:
        """Whether this request is hit; counts it."""
        if not self._matches(seen):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True

    def _matches(self, seen: Seen) -> bool:
        if callable(self.match):
            return self.match(seen)
        for name, wanted in self.match.items():
            value = str(getattr(seen, name))
            if value != wanted if name != "path" else re.search(wanted, value) is None:
                return False
        return True


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Another answer altogether."""

    def change(plan: Plan) -> None:
        plan.status = code
        plan.headers = dict(headers or {})
        plan.paced = False
        plan.replace_body(Bytes(body))

    return change


def redirect(url: str, code: int = 307) -> Fault:
    return status(code, {"Location": url})


def delay(seconds: float) -> Fault:
    """The status line comes later."""

    def change(plan: Plan) -> None:
        plan.delay += seconds

    return change


def refuse() -> Fault:
    """The connection is reset before any byte of an answer (whole origin: `Origin.refusing`)."""

    def change(plan: Plan) -> None:
        plan.end, plan.end_after = End.RESET, -1

    return change


def stall(after: int) -> Fault:
    """`after` bytes of the body, then silence on an open connection. -1: not even the status line."""
    return _ends(End.STALL, after)


def truncate(after: int) -> Fault:
    """`after` bytes of the body, then a clean end of the connection. -1: not even the status line."""
    return _ends(End.TRUNCATE, after)


def reset(after: int) -> Fault:
    """`after` bytes of the body arrive, then RST. -1: not even the status line."""
    return _ends(End.RESET, after)


def reset_in_head() -> Fault:
    """Half of the head arrives, then RST."""

    def change(plan: Plan) -> None:
        plan.end, plan.halves_head = End.RESET, True

    return change


def drip(rate: float) -> Fault:
    """The body at so many bytes a second."""

    def change(plan: Plan) -> None:
        plan.rate = rate

    return change


def wrong_bytes(at: int = 0) -> Fault:
    """Right length, one byte wrong: the one at offset `at` of the whole body (negative: from its end)."""

    def change(plan: Plan) -> None:
        plan.body = _Corrupt(plan.body, at % plan.body.size)

    return change


def longer(count: int) -> Fault:
    """A body `count` bytes longer than it should be, with the length that belongs to it."""

    def change(plan: Plan) -> None:
        plan.replace_body(Bytes(plan.payload() + b"\0" * count))

    return change


def claims(difference: int) -> Fault:
    """Content-Length lies by `difference`; the body is sent as it is, then the connection ends."""

    def change(plan: Plan) -> None:
        plan.claim = max(plan.length + difference, 0)

    return change


def no_length(framing: Framing = Framing.CHUNKED) -> Fault:
    """No Content-Length: chunked, or ended by closing the connection."""

    def change(plan: Plan) -> None:
        plan.framing = framing

    return change


def header(name: str, value: str | None) -> Fault:
    """One header says something else, or is not there (None)."""

    def change(plan: Plan) -> None:
        plan.headers = {key: kept for key, kept in plan.headers.items() if key.lower() != name.lower()}
        if value is not None:
            plan.headers[name] = value

    return change


def gzip() -> Fault:
    """What nobody asked for: Content-Encoding on a manifest or blob."""

    def change(plan: Plan) -> None:
        plan.headers["Content-Encoding"] = "gzip"
        plan.replace_body(Bytes(gzip_module.compress(plan.payload())))

    return change


def ignore_range() -> Fault:
    """A whole 200 to a request for a part."""

    def change(plan: Plan) -> None:
        if plan.whole is not None:
            plan.status = 200
            plan.headers.pop("Content-Range", None)
            plan.replace_body(plan.whole)

    return change


def bad_range(shift: int = 1, total: int | None = None) -> Fault:
    """A 206 whose Content-Range names bytes `shift` away from those it sends, or another total."""

    def change(plan: Plan) -> None:
        if plan.whole is not None:
            size = plan.whole.size if total is None else total
            plan.headers["Content-Range"] = f"bytes {plan.start + shift}-{plan.stop - 1 + shift}/{size}"

    return change


def both(*faults: Fault) -> Fault:
    """Several faults at once, in order."""

    def change(plan: Plan) -> None:
        for fault in faults:
            fault(plan)

    return change


def _ends(end: End, after: int) -> Fault:
    def change(plan: Plan) -> None:
        plan.end, plan.end_after = end, after

    return change


class _Corrupt:
    fd: int | None = None

    def __init__(self, right: Source, at: int) -> None:
        self.size = right.size
        self._right = right
        self._at = at

    def read(self, offset: int, count: int) -> bytes:
        data = bytearray(self._right.read(offset, count))
        if offset <= self._at < offset + len(data):
            data[self._at - offset] ^= 0xFF
        return bytes(data)
