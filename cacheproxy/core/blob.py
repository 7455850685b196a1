"""One blob, seen by whoever sends it: stored, streamed through, or still arriving."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cacheproxy.core.digest import Digest


class Span(NamedTuple):
    """The half-open byte interval [start, stop) of a blob that one response, or one part of it, covers.

    `bounded` says that the client named the end itself (`bytes=a-b`). A bounded span is sent as soon as its
    bytes are here, the tail included: lazy pullers read the footer first and verify for themselves. Whole and
    open-ended responses are unbounded: their tail waits for the proof of the digest.
    """

    start: int
    stop: int
    bounded: bool

    @property
    def length(self) -> int:
        return self.stop - self.start


class BlobBroken(Exception):
    """The bytes that were promised cannot be sent. The response is cut short, never ended as if whole."""


class BlobView(Protocol):
    """A blob that can be sent. The holder calls `close` exactly once."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        ...

    async def available(self, offset: int, span: Span) -> int:
        """Wait until at least one byte from `offset` may be sent for `span`; say how many, within it.

        Raises whatever ended the source: before the status line the caller turns it into an answer,
        afterwards into a connection that is cut.
        """
        ...

    def fileno(self) -> int | None:
        """The descriptor that holds the bytes `available` just named, at their own offsets; None: use `read`.

        Ask again after each `available`: a fill whose disk is full goes on without a file.
        """
        ...

    def failed(self, error: Exception) -> bool:
        """The descriptor did not give what `available` had named: an OSError, or BlobBroken for an early end.

        True: ask `available` again, there is another way. False: there is none, and what went before is all.
        Whoever kept the bytes learns of it either way.
        """
        ...

    async def read(self, offset: int, count: int) -> bytes | memoryview:
        """1 to `count` of the bytes that `available` just named. For sources without a file."""
        ...

    def close(self) -> None: ...
