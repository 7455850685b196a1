"""httpx over connections that have one owner each.

httpcore's pool loses a connection with each request that is cancelled at the wrong moment, and a proxy
cancels all day. Here a request owns its connection from the first byte of the request to the last of the
response's body. Giving it back and closing it are plain calls that never wait, so cancellation has nowhere to
strike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import h11
import httpx
import trio

from cacheproxy.upstream.connection import Connection, Timeouts
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.idle import Idle, Origin

_PORTS = {"http": 80, "https": 443}

_REPEATABLE = frozenset({"GET", "HEAD"})

_STALE = (httpx.ReadError, httpx.WriteError)
"""How a connection ends that the peer had given up while it was idle."""


class OwnedTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=...)`. Raises httpx.TransportErrors; `causes.cause_of` says what they
    mean.

    Timeouts are the client's: connect (all of dialling), read (a head, then each piece of a body), write. A
    body that is left half read closes its connection; so does a response that something came after.
    """

    def __init__(self, dialer: Dialer, *, max_idle: int = 32, idle_seconds: float = 15.0) -> None:
        """Up to `max_idle` connections of all origins wait `idle_seconds` for their next request: less than
        the 60 s after which common servers and load balancers close."""
        self._dialer = dialer
        self._idle = Idle(max_idle, idle_seconds)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = _origin(request.url)
        await request.aread()
        connection = self._idle.take(origin)
        if connection is not None:
            try:
                return await self._exchange(connection, origin, request)
            except _STALE:
                if connection.answered or request.method not in _REPEATABLE:
                    raise
        return await self._exchange(await self._dial(origin, request), origin, request)

    async def tidy(self) -> None:
        """Close what was idle for too long. Runs until cancelled; without it that happens at the next request
        only, and a peer that closed waits for us till then."""
        while True:
            await trio.sleep(self._idle.seconds)
            self._idle.close_old()

    async def aclose(self) -> None:
        """Closes what is idle; connections in use follow when their responses are closed. Never waits."""
        self._idle.close()

    async def _dial(self, origin: Origin, request: httpx.Request) -> Connection:
        return Connection(await self._dialer.dial(*origin, seconds=Timeouts.of(request).connect))

    async def _exchange(
        self, connection: Connection, origin: Origin, request: httpx.Request
    ) -> httpx.Response:
        timeouts = Timeouts.of(request)
        try:
            response = await connection.exchange(self._head(request), request.content, timeouts)
        except BaseException:
            connection.close()
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw_items(),
            stream=Body(connection, origin, self._idle, timeouts.read),
            extensions={"http_version": b"HTTP/" + response.http_version, "reason_phrase": response.reason},
        )

    def _head(self, request: httpx.Request) -> h11.Request:
        target, headers = request.url.raw_path, list(request.headers.raw)
        proxy = self._dialer.proxy
        if proxy is not None and request.url.scheme == "http":
            target = b"http://" + request.url.netloc + target  # absolute form, RFC 9112 section 3.2.2
            headers += proxy.headers
        try:
            return h11.Request(method=request.method, target=target, headers=headers)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error


def _origin(url: httpx.URL) -> Origin:
    if url.scheme not in _PORTS:
        raise httpx.UnsupportedProtocol(f"neither http nor https: {url.scheme!r}")
    port = _PORTS[url.scheme] if url.port is None else url.port
    if not url.raw_host or not 0 < port < 65536:  # httpx lets both pass
        raise httpx.LocalProtocolError(f"no host, or no such port: {url.netloc!r}")
    return Origin(url.scheme, url.raw_host.decode("ascii"), port)


class Body(httpx.AsyncByteStream):
    """The response's body, and with it the connection.

    An iterator and not a generator: one that is dropped half-way leaves nothing to finalise.
    """

    def __init__(self, connection: Connection, origin: Origin, idle: Idle, stall: float) -> None:
        self._connection: Connection | None = connection
        self._origin = origin
        self._idle = idle
        self._stall = stall
        self._whole = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise StopAsyncIteration if self._whole else httpx.StreamClosed()
        try:
            part = await self._connection.part(self._stall)
        except BaseException:
            self._connection.close()
            self._connection = None
            raise
        if not part:
            self._whole = True
            self._release()
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.reusable():
            self._idle.give(self._origin, connection)
        else:
            connection.close()
