"""Connections between two requests."""

from __future__ import annotations

from typing import NamedTuple

import trio

from cacheproxy.upstream.connection import Connection


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class _Waiting(NamedTuple):
    origin: Origin
    connection: Connection
    until: float


class Idle:
    """Last in, first out: the warmest connection is used again, the others get old and are closed.

    Nothing here waits, so nothing here can be cancelled half-way.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self.seconds = seconds
        """How long a connection waits."""
        self._waiting: list[_Waiting] = []  # in the order in which they will be too old

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, origin: Origin) -> Connection | None:
        """A connection to `origin` that nothing came in on since; the caller has it for itself."""
        self.close_old()
        for n in range(len(self._waiting) - 1, -1, -1):
            if self._waiting[n].origin == origin:
                connection = self._waiting.pop(n).connection
                if connection.quiet():
                    return connection
                connection.close()
        return None

    def give(self, origin: Origin, connection: Connection) -> None:
        """Keep `connection` for the next request; the oldest one makes room."""
        self.close_old()
        self._waiting.append(_Waiting(origin, connection, trio.current_time() + self.seconds))
        if len(self._waiting) > self._most:
            self._waiting.pop(0).connection.close()

    def close(self) -> None:
        """Close all, and from now on each that is given."""
        self._most = 0
        while self._waiting:
            self._waiting.pop().connection.close()

    def close_old(self) -> None:
        now = trio.current_time()
        while self._waiting and self._waiting[0].until <= now:
            self._waiting.pop(0).connection.close()
