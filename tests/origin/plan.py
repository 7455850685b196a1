"""One answer before it is sent: what the origin would say, and what a fault made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tests.origin.content import Bytes, as_json


class Source(Protocol):
    """A body's bytes. `fd` is None when they must be read instead of handed to `sendfile`."""

    size: int
    fd: int | None

    def read(self, offset: int, count: int) -> bytes: ...


class Framing(StrEnum):
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class End(StrEnum):
    """How the body ends when it does not end well."""

    STALL = "stall"
    TRUNCATE = "truncate"
    RESET = "reset"


@dataclass(slots=True)
class Plan:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Source = field(default_factory=lambda: Bytes(b""))
    start: int = 0
    """The half-open part [start, stop) of `body` that is sent."""
    stop: int = -1
    whole: Source | None = None
    """The entity behind a 206, for the fault that ignores ranges."""
    paced: bool = False
    """The origin's `rate` counts for it: the bytes of a blob."""
    delay: float = 0.0
    rate: float | None = None
    claim: int | None = None
    """What Content-Length says instead of the truth."""
    framing: Framing = Framing.LENGTH
    end: End | None = None
    end_after: int = 0
    """Bytes of the body before that; -1: not even a head."""
    halves_head: bool = False
    """The end comes in the middle of the head."""

    def __post_init__(self) -> None:
        if self.stop < 0:
            self.stop = self.body.size

    @property
    def length(self) -> int:
        return self.stop - self.start

    def replace_body(self, body: Source) -> None:
        """Another body, sent whole."""
        self.body, self.start, self.stop = body, 0, body.size

    def payload(self) -> bytes:
        return self.body.read(self.start, self.length)


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Plan:
    body = as_json({"errors": [{"code": code, "message": message, "detail": None}]})
    return Plan(status, {"Content-Type": "application/json", **(headers or {})}, Bytes(body))


def document(value: object, headers: dict[str, str] | None = None) -> Plan:
    return Plan(200, {"Content-Type": "application/json", **(headers or {})}, Bytes(as_json(value)))
