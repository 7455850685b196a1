"""What passes between the edge and the application: one request in, one response up."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cacheproxy.core.blob import BlobView, Span

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a client showed in its TLS handshake, proven by an authority that the configuration names."""

    fingerprint: str
    """SHA-256 over all of it, in hex: the same for the same certificate only."""
    subject: str
    """As openssl writes it, "O=Example, CN=build-7": for people."""
    names: tuple[tuple[str, str], ...]
    """CN, O and OU of the subject; DNS, URI and email of the alternative names: all that there are."""
    until: float
    """When it expires, as time.time(): a connection may last longer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, after X-Forwarded-* of listed proxies was taken into account."""

    address: Address | None
    """None: a unix socket's peer, on this host by nature."""
    scheme: str
    """"http" or "https", as the client sees us."""
    forwarded_by_stranger: bool = False
    """X-Forwarded-* or Forwarded came from a peer that is not listed, or from a listed one that does not say
    for whom it asks: the address says nothing about the client."""
    certificate: ClientCertificate | None = None
    """Of the connection; None where somebody else's request came over it."""


async def no_bytes() -> bytes:
    """A body that is over."""
    return b""


@dataclass(slots=True)
class Request:
    method: str
    target: str
    """Origin form, exactly as sent: ASCII, starts with "/"."""
    headers: dict[str, str]
    """Names in lower case; repeated fields joined with ", " (only those for which RFC 9110 allows it)."""
    peer: Peer
    id: str
    """One for the client log, the upstream log and the error body."""
    read_body: Callable[[int], Awaitable[bytes]]
    """Awaits the whole body, at most so many bytes; raises BodyTooLarge or BodyBroken, which the handler
    lets pass: the edge answers. A body that nobody reads is drained or cut by the edge."""
    receive: Callable[[], Awaitable[bytes]] = no_bytes
    """Awaits some bytes of the body; empty at its end. The client's rate is judged while it is waited for.
    Raises BodyBroken."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """Raw, without the "?"."""
        return self.target.partition("?")[2]

    @property
    def host(self) -> str:
        return self.headers.get("host", "")

    @property
    def declared(self) -> int | None:
        """Bytes of the body, where the head says it."""
        length = self.headers.get("content-length")
        return None if length is None else int(length)


class BodyTooLarge(Exception):
    """The request's body is over what the handler takes: 413, and the connection ends."""


class BodyBroken(Exception):
    """The request's body is malformed, or ended before it was whole: 400, and the connection ends."""


@dataclass(frozen=True, slots=True)
class BlobBody:
    """Bytes of a blob, framed by literal parts (multipart/byteranges). The edge closes `view` in any case."""

    view: BlobView
    parts: Sequence[bytes | Span]
    length: int
    """Bytes of all parts together: the Content-Length."""


@dataclass(slots=True)
class Response:
    """Headers without framing: the edge adds Content-Length (and Connection, Date) itself.

    For an answer to HEAD give the body that GET would have (`bytes`), or `length` with an empty body: the
    edge sends the length and no body.
    """

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | BlobBody = b""
    length: int | None = None
    """Content-Length where it is not that of `body`: answers to HEAD."""
    outcome: str = ""
    """hit, miss, coalesced, stale, negative, bypass; "" for what is none of these."""
    upstream: str = ""
    """Canonical prefix of the upstream that the request meant, for the log and the counters."""
    close: bool = False
    """End the connection after this answer."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that was made before: everything but status line's Date, joined once, sent many times."""

    head: bytes
    """Status line and headers, each with its CRLF: with Content-Length, without Date and Connection, and
    without the blank line."""
    body: bytes
    outcome: str
    upstream: str
    status: int = 200


@dataclass(slots=True)
class Exchange:
    """One finished request, for the log and the counters."""

    peer: Peer
    method: str
    target: str
    status: int
    """499 when the client had left before there was a status line."""
    sent: int
    """Body bytes that were handed to the kernel."""
    started: float
    """time.time() at the first byte of the request."""
    seconds: float
    first_byte: float | None
    """Seconds until the status line was handed to the kernel; None: it never was."""
    outcome: str = ""
    upstream: str = ""
    id: str = ""
    user_agent: str = ""
    aborted: str = ""
    """Why the answer was cut: "client", "source", "slow", "drain"; "" when it was whole."""
    trace: str = ""
    """The id of its trace; "" when it is not traced."""
    shared: str = ""
    """The id of the request that began what this one waited for; "" when it waited for nobody's."""


class Application(Protocol):
    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        """An answer that needs no waiting: no await, no I/O; None sends the request to `handle`."""
        ...

    async def handle(self, request: Request) -> Response:
        """Answer any well-formed request. Never raises but for cancellation, BodyTooLarge and BodyBroken."""
        ...

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        """The error body for what the edge itself refuses (400, 408, 413, 414, 417, 431, 503...)."""
        ...


Log = Callable[[Exchange], None]
