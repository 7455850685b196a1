"""How many connections there are, in all and by whom: counts, and a yes or no."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field

from cacheproxy.edge.limits import Limits
from cacheproxy.edge.message import Address

Key = int | None
"""Whose share a connection takes; None: nobody's."""


def key_of(address: Address | None) -> Key:
    """One IPv4 address, or one IPv6 /64: whoever has one address of it has them all."""
    if isinstance(address, ipaddress.IPv6Address):
        return -1 - (int(address) >> 64)
    return None if address is None else int(address)


@dataclass(slots=True)
class Admission:
    limits: Limits
    total: int = 0
    shares: Counter[int] = field(default_factory=Counter)

    def enter(self, key: Key) -> str | None:
        """Count a connection in, or name the limit that refuses it."""
        if self.total >= self.limits.connections:
            return "total"
        if key is not None and self.shares[key] >= self.limits.per_address:
            return "address"
        self.total += 1
        if key is not None:
            self.shares[key] += 1
        return None

    def leave(self, key: Key) -> None:
        self.total -= 1
        if key is not None:
            self.shares[key] -= 1
            if not self.shares[key]:
                del self.shares[key]
