"""A scripted application, blobs of every kind, and a raw client: what the edge's tests talk through."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import trio

from cacheproxy.core.blob import Span
from cacheproxy.core.digest import Digest
from cacheproxy.edge.forwarded import Forwarding
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.listeners import open_listeners
from cacheproxy.edge.message import BlobBody, Exchange, Network, Peer, Ready, Request, Response
from cacheproxy.edge.server import TLS, plain, serve

Handler = Callable[[Request], Awaitable[Response]]
DIGEST = Digest.of(b"any")


class Scripted:
    """An application whose answers are put in by path; any other path is answered with its own name."""

    def __init__(self) -> None:
        self.ready: dict[str, Ready] = {}
        self.routes: dict[str, Handler] = {}
        self.requests: list[Request] = []

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return self.ready.get(target)

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        if request.path in self.routes:
            return await self.routes[request.path](request)
        return Response(200, body=request.target.encode())

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return Response(status, [("Content-Type", "text/plain")], f"{message} ({request_id})".encode())

    def blob(self, path: str, view: View, *parts: bytes | Span) -> None:
        """Serve the view, whole or in these parts, at `path`."""
        chosen = parts or (Span(0, view.size, False),)
        length = sum(len(part) if isinstance(part, bytes) else part.length for part in chosen)

        async def handler(_: Request) -> Response:
            return Response(200, body=BlobBody(view, chosen, length), outcome="hit", upstream="hub")

        self.routes[path] = handler


class View:
    """A blob in memory, whole from the start. Counts its closings."""

    digest = DIGEST

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.closed = 0

    async def available(self, offset: int, span: Span) -> int:
        await trio.lowlevel.checkpoint()
        return span.stop - offset

    def fileno(self) -> int | None:
        return None

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + count]

    def close(self) -> None:
        self.closed += 1


class FileView(View):
    """The same in a file."""

    def __init__(self, data: bytes, file: int) -> None:
        super().__init__(data)
        self.file = file
        os.pwrite(file, data, 0)

    def fileno(self) -> int | None:
        return self.file


class Growing(View):
    """The same while it arrives: `arrive` adds bytes, `fail` ends it."""

    def __init__(self, data: bytes, here: int = 0) -> None:
        super().__init__(data)
        self.here = here
        self.error: Exception | None = None
        self.changed = trio.Event()
        self.waited = trio.Event()

    async def available(self, offset: int, span: Span) -> int:
        while offset >= self.here and self.error is None:
            self.waited.set()
            await self.changed.wait()
        if self.error is not None:
            raise self.error
        return min(self.here, span.stop) - offset

    def arrive(self, upto: int) -> None:
        self.here = upto
        self._wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@dataclass
class Running:
    """A server under test."""

    port: int
    app: Scripted
    drain: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    exchanges: list[Exchange] = field(default_factory=list)
    logged: trio.Event = field(default_factory=trio.Event)
    clients: list[Client] = field(default_factory=list)

    def log(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.logged.set()
        self.logged = trio.Event()

    async def exchange(self, count: int = 1) -> Exchange:
        """The log's `count`th entry, once it is there."""
        while len(self.exchanges) < count:
            await self.logged.wait()
        return self.exchanges[count - 1]

    async def secure(self, context: ssl.SSLContext, https_compatible: bool = True) -> Client:
        """A client that speaks TLS."""
        client = await self.connect()
        client.secure = trio.SSLStream(
            client.stream, context, server_hostname="localhost", https_compatible=https_compatible
        )
        await client.secure.do_handshake()
        return client

    async def connect(self) -> Client:
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.clients.append(client)
        return client


@asynccontextmanager
async def serving(
    app: Scripted,
    limits: Limits | None = None,
    trusted_proxies: Iterable[Network] = (),
    tls: TLS = plain,
) -> AsyncIterator[Running]:
    listeners = open_listeners(["127.0.0.1:0"])
    running = Running(listeners[0].getsockname()[1], app)

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve(
            listeners,
            app,
            limits=limits or Limits(),
            forwarding=Forwarding(trusted_proxies),
            log=running.log,
            drain=running.drain,
            tls=tls,
            task_status=task_status,
        )
        running.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield running
        finally:
            for client in running.clients:
                client.stream.socket.close()
        nursery.cancel_scope.cancel()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Bytes out, answers in. Believes Content-Length and nothing else."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.secure: trio.SSLStream[trio.SocketStream] | None = None
        self.buffer = b""

    @property
    def spoken(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        return self.secure or self.stream

    async def send(self, data: bytes) -> None:
        await self.spoken.send_all(data)

    async def get(self, target: str, *headers: str, method: str = "GET") -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: cache.example:5000", *headers, "", ""]
        await self.send("\r\n".join(lines).encode())
        return await self.answer(bodiless=method == "HEAD")

    async def answer(self, bodiless: bool = False) -> Answer:
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += await self._more()
        start, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        status, *lines = start.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if bodiless else int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            self.buffer += await self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(int(status.split()[1]), headers, body)

    async def ended(self) -> bool:
        """Wait for the server's end. True: orderly and without further bytes."""
        return not self.buffer and not await self.spoken.receive_some()

    async def read_to_the_end(self) -> None:
        """Raises trio.BrokenResourceError when the end is a reset."""
        while await self.spoken.receive_some():
            pass

    async def _more(self) -> bytes:
        data = await self.spoken.receive_some()
        if not data:
            raise EOFError(f"the server ended after {self.buffer!r}")
        return bytes(data)

    async def aclose(self) -> None:
        await self.spoken.aclose()


def ready(body: bytes = b"manifest", status: int = 200) -> Ready:
    start = f"HTTP/1.1 {status} OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return Ready(start.encode(), body, "hit", "hub", status)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
