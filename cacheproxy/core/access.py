"""Who may read what without saying who they are: by network, since docker sends a mirror no credentials."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cacheproxy.core.patterns import Patterns

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Address, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Grant:
    networks: tuple[Network, ...]
    repositories: Patterns
    """Of canonical names."""


class Access:
    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    def classify(self, address: Address | None) -> int:
        """The grants that hold for a client there, as a bit mask; the same mask may pull the same things.

        None is a unix socket's peer: on this host, as a loopback address is.
        """
        return sum(1 << i for i, grant in enumerate(self._grants) if within(address, grant.networks))

    def may_pull(self, mask: int, repository: str) -> bool:
        return any(
            mask >> i & 1 and grant.repositories.matches(repository) for i, grant in enumerate(self._grants)
        )

    def anything(self, mask: int) -> bool:
        """Whether there is anything at all that the client may read: the answer to a ping."""
        return mask != 0


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether a client there is in one of them. None is a unix socket's peer."""
    addresses = LOOPBACK if address is None else (_unmapped(address),)
    return any(address in network for network in networks for address in addresses)


def _unmapped(address: Address) -> Address:
    """A listener on "::" sees IPv4 clients as ::ffff:a.b.c.d."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
