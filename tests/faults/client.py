"""A plain client: one request a connection, and an answer that tells whether it came whole."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

Address = tuple[str, int]

WITHIN = 20.0
"""Seconds for one answer. Nothing takes so long here, unless it hangs."""

_GULP = 1 << 20


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, as far as it came."""

    status: int
    """0: the connection ended before there was one."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def whole(self) -> bool:
        """As long as its head promised. One that promised nothing never is."""
        return self.headers.get("content-length") == str(len(self.body))

    @property
    def error(self) -> Any:
        """The first of the body's errors (distribution-spec, "Error Codes")."""
        return json.loads(self.body)["errors"][0]


class Asking:
    """A request that was sent; its answer is read when, and as far as, the test wants."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def head(self) -> Heard:
        """Without its body."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not await self._more():
                return Heard(0, {}, b"")
        first, *lines = self._buffer[:end].decode("ascii").split("\r\n")
        del self._buffer[: end + 4]
        pairs = (line.partition(": ") for line in lines)
        return Heard(int(first.split(" ")[1]), {name.lower(): value for name, _, value in pairs}, b"")

    async def take(self, count: int) -> bytes:
        """So many bytes of the body; fewer where it ends."""
        while len(self._buffer) < count and await self._more():
            pass
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def rest(self) -> bytes:
        """What is left of the body, to the end of the connection, be that clean or not."""
        while await self._more():
            pass
        return bytes(self._buffer)

    async def hang_up(self) -> None:
        await self._stream.aclose()

    async def _more(self) -> bool:
        try:
            data = await self._stream.receive_some(_GULP)
        except trio.BrokenResourceError:
            return False
        self._buffer += data
        return bool(data)


@asynccontextmanager
async def asking(
    address: Address,
    target: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    buffer: int | None = None,
    body: bytes | None = None,
) -> AsyncIterator[Asking]:
    """`body` None: there is none. `buffer`: bytes of the socket's receive buffer, small for a slow reader."""
    raw = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    stream = trio.SocketStream(raw)
    async with stream:
        await raw.connect(address)
        fields = {"Host": f"{address[0]}:{address[1]}", "Connection": "close", **(headers or {})}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b""))
        yield Asking(stream)


async def ask(
    address: Address,
    target: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Heard:
    with trio.fail_after(WITHIN):
        async with asking(address, target, method, headers, body=body) as request:
            head = await request.head()
            return Heard(head.status, head.headers, await request.rest())
