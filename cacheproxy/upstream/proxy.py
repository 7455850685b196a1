"""An HTTP proxy that the operator configured. The environment's are never asked."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import h11
import httpx

from cacheproxy.upstream.wire import Stream

_REPLY_LIMIT = 64 * 1024
"""Bytes of the proxy's head; its body, if any, is not read."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy is, and who we are to it."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)
    """The value of Proxy-Authorization (RFC 7617)."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """From "http://[user:password@]host:port". Raises ValueError with what is wrong, without the
        password."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"not a URL: {error}") from None
        if parsed.scheme != "http":
            raise ValueError(f"a proxy is reached by http://, not {parsed.scheme}://")
        if not parsed.host or parsed.raw_path not in (b"", b"/") or parsed.fragment:
            raise ValueError("a proxy is http://host:port, without a path")
        port = 80 if parsed.port is None else parsed.port
        if not 0 < port < 65536:
            raise ValueError(f"no such port: {port}")
        authorization = None
        if parsed.userinfo:
            login = f"{parsed.username}:{parsed.password}".encode()
            authorization = b"Basic " + base64.b64encode(login)
        return cls(parsed.host, port, authorization)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What each request to the proxy itself carries: never sent to a target."""
        return [] if self.authorization is None else [(b"Proxy-Authorization", self.authorization)]

    async def tunnel(self, stream: Stream, host: str, port: int) -> None:
        """Have the proxy connect `stream` to the target (CONNECT, RFC 9110 section 9.3.6).

        Raises httpx.ProxyError when it will not, or breaks off.
        """
        target = b"%s:%d" % (f"[{host}]".encode() if ":" in host else host.encode("ascii"), port)
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_REPLY_LIMIT)
        request = h11.Request(method="CONNECT", target=target, headers=[(b"Host", target), *self.headers])
        try:
            await stream.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
            reply = await _reply(http, stream)
        except (OSError, h11.RemoteProtocolError) as error:
            raise httpx.ProxyError(f"proxy {self.host}:{self.port}: {error}") from error
        if not 200 <= reply.status_code < 300:
            reason = reply.reason.decode("ascii", "replace")
            raise httpx.ProxyError(
                f"proxy {self.host}:{self.port} answered {reply.status_code} {reason}".rstrip()
            )
        if http.trailing_data[0]:
            # The target would speak second: these bytes are not its own, and TLS would take them for it.
            raise httpx.ProxyError(f"proxy {self.host}:{self.port} sent bytes of its own into the tunnel")


async def _reply(http: h11.Connection, stream: Stream) -> h11.Response:
    while True:
        event = http.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive())
