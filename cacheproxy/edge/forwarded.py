"""Who a request is from when it came through a proxy.

X-Forwarded-For, -Proto and -Host count only from proxies that the configuration lists; from anybody else
they are somebody's claim. Such a claim is not merely ignored: a stranger that sends one is a proxy that
nobody told us about, and its address says nothing about who asks, so `Peer.forwarded_by_stranger` takes
away what an address alone grants.

A unix socket's peer has no address and counts as this host, so it is listed when 127.0.0.1 or ::1 is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cacheproxy.edge import grammar
from cacheproxy.edge.message import Address, Network, Peer

FIELDS = frozenset(("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"))
"""Fields by which a proxy speaks about its client."""

_LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


def parse_address(text: str) -> Address | None:
    """An address as sockets and proxies write it: bare, `v4:port`, `[v6]:port`, with a zone; else None.

    An IPv4 address seen through an IPv6 socket (`::ffff:192.0.2.1`) is the IPv4 address.
    """
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Forwarding:
    """The listed proxies, and what is believed because of them."""

    def __init__(self, proxies: Iterable[Network] = ()) -> None:
        self._proxies = tuple(proxies)

    def trust(self, proxies: Iterable[Network]) -> None:
        """These from now on, and no others."""
        self._proxies = tuple(proxies)

    def lists(self, address: Address | None) -> bool:
        """Whether this neighbour's word about its clients counts."""
        candidates = _LOOPBACK if address is None else (address,)
        return any(candidate in network for candidate in candidates for network in self._proxies)

    def peer(self, neighbour: Address | None, headers: dict[str, str], scheme: str = "http") -> Peer:
        """Who asks, over a connection of this scheme. X-Forwarded-Host of a listed proxy replaces Host in
        `headers`.

        Host-based routing and the addresses that we hand out mean the name the client used, and most
        proxies put the name of the server behind them into Host.
        """
        if FIELDS.isdisjoint(headers):
            return Peer(neighbour, scheme)
        if not self.lists(neighbour):
            return Peer(neighbour, scheme, forwarded_by_stranger=True)
        told = _first(headers.get("x-forwarded-proto", scheme)).lower()
        host = _first(headers.get("x-forwarded-host", ""))
        if grammar.host(host) is not None:
            headers["host"] = host
        address, known = self._client(neighbour, headers.get("x-forwarded-for"))
        return Peer(address, "https" if told == "https" else "http", forwarded_by_stranger=not known)

    def _client(self, neighbour: Address | None, chain: str | None) -> tuple[Address | None, bool]:
        """The nearest hop that is no listed proxy. What stands left of it anybody may have written.

        False: the chain does not say. It holds something that is no address, or the proxy speaks only the
        `Forwarded` of RFC 7239, which is not read here.
        """
        if chain is None:
            return neighbour, False
        client = neighbour
        for hop in reversed(chain.split(",")):
            address = parse_address(hop.strip())
            if address is None:
                return neighbour, False
            client = address
            if not self.lists(address):
                break
        return client, True


def _first(value: str) -> str:
    return value.partition(",")[0].strip()
