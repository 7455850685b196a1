"""Which addresses this daemon connects to: public unicast, and what the operator lists.

`ipaddress.is_global` is not the rule: depending on the Python release it calls multicast, NAT64, 6to4 of
loopback and fec0::/10 global. So the rule is written out: for IPv6 what is open, for IPv4 what is closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_CLOSED = tuple(
    ip_network(text)
    for text in (
        # IANA IPv4 Special-Purpose Address Registry (RFC 6890 and its successors)
        "0.0.0.0/8",  # this host on this network; 0.0.0.0 connects to loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carrier NAT; Alibaba's metadata (100.100.100.200)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; the metadata of most clouds (169.254.169.254, 169.254.170.2)
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's old metadata (192.0.0.192)
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relay, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        # public by number only
        "168.63.129.16/32",  # Azure's WireServer: metadata and agent secrets of the virtual machine
        # IPv6, inside global unicast
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All else of IPv6 is loopback, ULA, link-local, multicast, IPv4 in disguise (NAT64 64:ff9b::/96 among it) or
unassigned."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052's well-known prefix. The local one (64:ff9b:1::/48, RFC 8215) does not say where its IPv4 address
is."""


class AddressGate:
    """Judges addresses: those in `allow` pass, all others only if they are public unicast."""

    def __init__(self, allow: Iterable[Network] = ()) -> None:
        self._allow = tuple(allow)

    def judge(self, address: Address) -> bool:
        """May we connect there? A v4-mapped address is judged as its IPv4 address; a scope id does not
        matter.

        A listed NAT64 prefix vouches for the translator, not for what is behind it: the IPv4 address inside
        is judged on its own.
        """
        if isinstance(address, IPv4Address):
            return self._listed(address) or not _within(address, _CLOSED)
        if address.ipv4_mapped is not None:
            return self.judge(address.ipv4_mapped)
        if address in _NAT64:
            return self._listed(address) and self.judge(IPv4Address(int(address) & 0xFFFFFFFF))
        return self._listed(address) or (address in _GLOBAL_UNICAST and not _within(address, _CLOSED))

    def _listed(self, address: Address) -> bool:
        return _within(address, self._allow)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)
