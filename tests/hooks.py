"""A receiver of webhooks on loopback: it keeps what it takes, and answers as it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import trio

WITHIN = 30.0
"""Seconds for deliveries that are waited for."""


@dataclass(frozen=True)
class Delivered:
    headers: dict[str, str]
    body: bytes
    status: int
    """What it was answered."""

    @property
    def event(self) -> Any:
        return json.loads(self.body)


@dataclass
class Hooks:
    url: str
    tries: list[Delivered] = field(default_factory=list)
    status: int = 204

    @property
    def taken(self) -> list[Delivered]:
        return [each for each in self.tries if each.status < 300]

    async def wait(self, wanted: Callable[[], bool]) -> None:
        with trio.fail_after(WITHIN):
            while not wanted():
                await trio.sleep(0.02)


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Hooks]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        hooks = Hooks(f"http://127.0.0.1:{port}/hook?of=us")
        nursery.start_soon(partial(trio.serve_listeners, partial(_serve, hooks), listeners))
        yield hooks
        nursery.cancel_scope.cancel()


async def _serve(hooks: Hooks, stream: trio.SocketStream) -> None:
    """One request a connection."""
    async with stream:
        connection, body, head = h11.Connection(h11.SERVER), b"", None
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                match event:
                    case h11.NEED_DATA:
                        connection.receive_data(await stream.receive_some(65536))
                    case h11.Request():
                        head = event
                    case h11.Data():
                        body += bytes(event.data)
                    case _:
                        return
        except trio.BrokenResourceError:
            return
        assert head is not None
        fields = {name.decode(): value.decode() for name, value in head.headers}
        hooks.tries.append(Delivered(fields, body, hooks.status))
        answer = h11.Response(
            status_code=hooks.status, headers=[("Connection", "close"), ("Content-Length", "0")]
        )
        sent = [connection.send(answer), connection.send(h11.EndOfMessage())]
        await stream.send_all(b"".join(data or b"" for data in sent))
