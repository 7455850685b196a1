"""How long, how slow and how many: the numbers that keep one client from being everybody's trouble."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 16_384


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, rates in bytes a second. What a head may hold is fixed: see `prefilter`."""

    handshake: float = 10.0
    """For TLS, from accept: a client that is there needs two round trips."""
    header: float = 10.0
    """For a whole head, from its first byte (from accept, for a connection's first): a drip of bytes
    earns no more."""
    idle: float = 60.0
    """Between two requests. Clients of registries keep connections for 30 to 90 s; a reused one saves a
    round trip."""
    rate: int = 1024
    window: float = 30.0
    """A response that the client takes, or a body that it sends, slower than `rate` over `window` is
    cut. There is no total time: a layer of 20 GB over a bad line may take hours."""
    linger: float = 2.0
    """How long a client may take to read our last answer before the socket is closed under it."""
    drain: float = 30.0
    """For running responses, once the server was told to stop; then they are cut."""
    connections: int = CONNECTIONS
    """In all. An idle one costs about 6 KiB here and one descriptor."""
    per_address: int = 4_096
    """From one IPv4 address or IPv6 /64: a quarter, so that nobody alone shuts the others out, and a NAT of
    build hosts still fits. Listed proxies and unix sockets speak for many and are exempt."""

    @classmethod
    def within(cls, descriptors: int) -> Limits:
        """As many connections as so many descriptors can serve: to be refused is better for a client than a
        daemon that cannot open a file.

        Each may take two, its socket and its blob's file; a quarter is for upstreams, fills and the database.
        """
        connections = min(CONNECTIONS, descriptors * 3 // 8)
        return cls(connections=connections, per_address=connections // 4)

    @property
    def least(self) -> float:
        """Bytes that must get through in a window."""
        return self.rate * self.window
