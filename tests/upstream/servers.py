"""Peers for the tests: HTTP/1.1 written out by hand, so that each can be as wrong as a test needs."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import httpx
import trio

from cacheproxy.upstream.dialer import Dialer, Resolve
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.proxy import Proxy
from cacheproxy.upstream.tls import client_context
from cacheproxy.upstream.transport import OwnedTransport

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True)
class Asked:
    """A request's head, as it came."""

    method: str
    target: str
    headers: dict[str, str]
    stream: trio.abc.Stream


Answer = Callable[[Asked], Awaitable[bytes | None]]
"""What to send back; None ends the connection."""


def reply(body: bytes = b"", *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


class Server:
    """`await nursery.start(server.serve)`, then `server.url`."""

    def __init__(self, answer: Answer, *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.accepted = 0
        self.open = 0
        self.port = 0
        self._tls = tls

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def left_with(self, connections: int) -> None:
        """Wait until so many connections are open, or fewer."""
        with trio.fail_after(30):
            while self.open > connections:
                await trio.sleep(0.001)

    async def serve(
        self, *, accept_after: float = 0.0, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=128)
        self.port = listener.socket.getsockname()[1]
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await trio.sleep(accept_after)
                nursery.start_soon(self._connection, await listener.accept())

    async def _connection(self, plain: trio.SocketStream) -> None:
        self.accepted += 1
        self.open += 1
        stream: trio.abc.Stream = plain
        if self._tls is not None:
            stream = trio.SSLStream(plain, self._tls, server_side=True, https_compatible=True)
        try:
            await self._requests(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(plain)

    async def _requests(self, stream: trio.abc.Stream) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some(65536)
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            request, *lines = head.decode().split("\r\n")
            method, target, _ = request.split(" ")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            asked = Asked(method, target, headers, stream)
            self.asked.append(asked)
            answer = await self.answer(asked)
            if answer is None:
                return
            await stream.send_all(answer)


def answering(*answers: bytes | None) -> Answer:
    """One answer a request, in order, then the last again; None ends the connection unanswered."""
    script = list(answers)

    async def answer(_asked: Asked) -> bytes | None:
        return script.pop(0) if len(script) > 1 else script[0]

    return answer


def dialer(*, ca: Path | None = None, proxy: str | None = None, resolve: Resolve | None = None) -> Dialer:
    """One that may connect to this host."""
    via = Proxy.parse(proxy) if proxy else None
    return Dialer(AddressGate(LOOPBACK), client_context(ca), proxy=via, resolve=resolve)


def client(transport: OwnedTransport, timeout: float = 5.0) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=timeout)


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
