"""What clients come in by, before any door: the certificate that they see, and whose word for them counts."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from cacheproxy import wiring
from cacheproxy.config import Server
from cacheproxy.edge.certificate import Certificate
from cacheproxy.edge.forwarded import Forwarding


class Entrance:
    def __init__(self) -> None:
        self._certificate: Certificate | None = None
        self.forwarding = Forwarding()
        self._changed = trio.Event()

    @classmethod
    async def open(cls, section: Server) -> Entrance:
        """Raises CannotStart."""
        entrance = cls()
        (await entrance.prepare(section))()
        return entrance

    def context(self) -> ssl.SSLContext | None:
        """For a connection that begins now (edge.server.TLS)."""
        return None if self._certificate is None else self._certificate.context()

    async def prepare(self, section: Server) -> Callable[[], None]:
        """Read certificate and key again, wherever they are now. What is returned puts them in force.

        Raises CannotStart; then nothing has changed.
        """
        certificate = await wiring.server_certificate(section.tls)

        def enter() -> None:
            self._certificate = certificate
            if certificate is not None:
                certificate.announce()
            self.forwarding.trust(section.trusted_proxies)
            self._changed.set()

        return enter

    async def watch(self) -> None:
        """Runs until cancelled: the certificate is renewed whenever its files change."""
        while True:
            self._changed = trio.Event()
            async with trio.open_nursery() as watching:
                if self._certificate is not None:
                    watching.start_soon(self._certificate.watch)
                await self._changed.wait()
                watching.cancel_scope.cancel()
