"""Bytes to and from a peer, in bulk. One task at a time uses a stream: HTTP/1.1 asks, then listens."""

from __future__ import annotations

from typing import Protocol

import trio

GULP = 256 * 1024
"""Bytes asked of the kernel at once. 64 KiB cost half again as much time a byte, 1 MiB made the loop lag."""


class Stream(Protocol):
    """A connection. Errors are the operating system's (OSError, ssl.SSLError among them) and trio's own."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """1 to GULP bytes, as they come; b"" once the peer has ended."""
        ...

    def close(self) -> None:
        """Give the descriptor back, now and without a farewell: nothing waits, so nothing can be
        cancelled."""
        ...

    def quiet(self) -> bool:
        """Nothing has come in since: no bytes that nobody asked for, no end, no reset."""
        ...


class Wire:
    """TCP, as it is."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += await self._socket.send(view[sent:])

    async def receive(self) -> bytes:
        return await self._socket.recv(GULP)

    def close(self) -> None:
        self._socket.close()

    def quiet(self) -> bool:
        return self._socket.fileno() >= 0 and not self._socket.is_readable()
