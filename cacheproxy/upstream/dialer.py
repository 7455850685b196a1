"""From a URL's host to a connected stream, through the gate.

The checks are here and nowhere above: whatever a redirect, a token realm or a changing DNS answer makes of a
URL, the addresses that are judged are the addresses that are connected to. SNI, certificate check and Host
stay the URL's.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import zip_longest
from typing import Any, NamedTuple

import httpx
import trio

from cacheproxy.upstream.causes import AddressRefused, HandshakeFailed, NameUnresolved
from cacheproxy.upstream.gate import Address, AddressGate
from cacheproxy.upstream.proxy import Proxy
from cacheproxy.upstream.tls import BulkTLS
from cacheproxy.upstream.wire import Stream, Wire

_LOOKUPS = 4
"""Threads of one dialer that may wait for DNS at once: a resolver that hangs holds up its own upstream
only."""

_ANYWHERE = AddressGate((ip_network("0.0.0.0/0"), ip_network("::/0")))
"""For the proxy: the operator named it, so where it is needs no listing."""


class Place(NamedTuple):
    """One address of a host, as the socket module wants it."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def address(self) -> Address:
        return ip_address(str(self.sockaddr[0]).partition("%")[0])


Resolve = Callable[[str, int], Awaitable[list[Place]]]


class Dialer:
    """Connects, for one upstream. Raises httpx.ConnectTimeout, httpx.ProxyError and the ConnectErrors of
    `causes`; the messages do not repeat the host, which the caller knows."""

    def __init__(
        self,
        gate: AddressGate,
        context: ssl.SSLContext,
        *,
        identified: Mapping[tuple[str, int], ssl.SSLContext] | None = None,
        proxy: Proxy | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """`identified` has the contexts with our certificate, by the (host, port) that may see it. A redirect
        or a token server elsewhere meets `context`, which has none.
        """
        self.proxy = proxy
        self._gate = gate
        self._context = context
        self._identified = identified or {}
        self._resolve = resolve or _System()

    async def dial(self, scheme: str, host: str, port: int, seconds: float) -> Stream:
        """A stream to the URL's host, through the proxy if there is one; for https with TLS agreed on.

        `host` is ASCII (IDNA), IPv6 without brackets. All steps together have `seconds`.
        Over a proxy, plain http is not tunnelled: the stream ends at the proxy, which wants the absolute
        form.
        """
        try:
            with trio.fail_after(seconds):
                wire = await self._reach(host, port, tunnel=scheme == "https")
                return wire if scheme == "http" else await self._secure(wire, host, port)
        except trio.TooSlowError:
            raise httpx.ConnectTimeout(f"no connection within {seconds:g} s") from None

    async def _reach(self, host: str, port: int, *, tunnel: bool) -> Wire:
        if self.proxy is None:
            return await self._connect(host, port, self._gate)
        # A name is resolved where we cannot see it; what needs no resolving is judged here.
        _judge(_loopback(host, port) or _literal(host, port), self._gate)
        wire = await self._connect(self.proxy.host, self.proxy.port, _ANYWHERE)
        if tunnel:
            with _closed_on_error(wire):
                await self.proxy.tunnel(wire, host, port)
        return wire

    async def _connect(self, host: str, port: int, gate: AddressGate) -> Wire:
        places = _literal(host, port) or await self._resolve(host, port)
        _judge(places, gate)
        return await _first_to_answer(_interleaved(places))

    async def _secure(self, wire: Wire, host: str, port: int) -> Stream:
        context = self._identified.get((host, port), self._context)
        with _closed_on_error(wire), _explained():
            tls = BulkTLS(wire, context, host)
            await tls.handshake()
        return tls


def _judge(places: Iterable[Place], gate: AddressGate) -> None:
    """One bad address refuses all: a name that points inside and outside at once is not to be trusted at
    all."""
    for place in places:
        if not gate.judge(place.address):
            raise AddressRefused(f"address {place.address} is refused; allow_addresses may list it")


def _literal(host: str, port: int) -> list[Place]:
    """The address that `host` spells, in any form the C library takes ("0x7f000001", "127.1"); [] for a
    name."""
    try:
        return _places(
            socket.getaddrinfo(host.rstrip("."), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
    except (OSError, ValueError):
        return []


def _loopback(host: str, port: int) -> list[Place]:
    """RFC 6761 section 6.3: these names mean whoever resolves them."""
    return _literal("127.0.0.1", port) if f".{host}".rstrip(".").lower().endswith(".localhost") else []


class _System:
    """The C library's resolver, in threads."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_LOOKUPS)

    async def __call__(self, host: str, port: int) -> list[Place]:
        look_up = partial(socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:
            raise NameUnresolved(error.strerror or str(error)) from error
        except ValueError as error:
            raise NameUnresolved("not a host name") from error
        return _places(found)


def _places(found: Iterable[tuple[int, int, int, str, tuple[Any, ...]]]) -> list[Place]:
    return list(dict.fromkeys(Place(family, sockaddr) for family, _, _, _, sockaddr in found))


def _interleaved(places: Sequence[Place]) -> list[Place]:
    """The families in turn, beginning with the resolver's choice (RFC 8305 section 4): one dead family costs
    one wait."""
    if not places:
        return []
    first = [place for place in places if place.family == places[0].family]
    second = [place for place in places if place.family != places[0].family]
    return [place for pair in zip_longest(first, second) for place in pair if place is not None]


async def _first_to_answer(places: Sequence[Place]) -> Wire:
    """One after the other, each with its share of the time that is left."""
    failures = []
    late = 0
    for done, place in enumerate(places):
        share = max(0.0, trio.current_effective_deadline() - trio.current_time()) / (len(places) - done)
        with trio.move_on_after(share):
            try:
                return await _open(place)
            except OSError as error:
                failures.append(f"{place.address}: {_reason(error)}")
                continue
        failures.append(f"{place.address}: no answer within {share:.3g} s")
        late += 1
    kind = httpx.ConnectTimeout if late == len(places) > 0 else httpx.ConnectError
    raise kind("; ".join(failures) or "no address")


async def _open(place: Place) -> Wire:
    connecting = trio.socket.socket(place.family, socket.SOCK_STREAM)
    try:
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await connecting.connect(place.sockaddr)
    except BaseException:
        connecting.close()
        raise
    return Wire(connecting)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


@contextmanager
def _closed_on_error(wire: Wire) -> Iterator[None]:
    try:
        yield
    except BaseException:
        wire.close()
        raise


@contextmanager
def _explained() -> Iterator[None]:
    """What a handshake raises, as what it means. Never a reason to try without TLS."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise HandshakeFailed(f"certificate not accepted: {error.verify_message}") from error
    except ssl.SSLEOFError as error:
        raise httpx.ConnectError("connection closed during the TLS handshake") from error
    except ssl.SSLError as error:
        raise HandshakeFailed(f"TLS handshake: {error.reason or error}") from error
    except OSError as error:
        raise httpx.ConnectError(f"{_reason(error)} during the TLS handshake") from error
    except ValueError as error:  # from OpenSSL's reading of the name, which only a proxy has seen before
        raise HandshakeFailed("not a name that a certificate could be for") from error
