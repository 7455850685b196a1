"""Who is told what happens, put together from the configuration, while the daemon runs."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import trio

from cacheproxy import __version__, wiring
from cacheproxy import config as c
from cacheproxy.core.envelopes import Teller
from cacheproxy.core.webhooks import BadSecret, parse_secrets
from cacheproxy.registry.sinks import Sinks
from cacheproxy.registry.webhooks import SIDE_BY_SIDE, Delivery, Hook
from cacheproxy.store.database import Database
from cacheproxy.store.outbox import Outbox, OutboxRows, Sink
from cacheproxy.upstream.credentials import CredentialsFailed, read_secret
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.proxy import Proxy
from cacheproxy.upstream.tls import client_context
from cacheproxy.upstream.transport import OwnedTransport
from cacheproxy.upstream.webhook import IDLE, Receiver


@dataclass(frozen=True, slots=True)
class _Made:
    """A delivery, and what it was made from: another one is made when that changes."""

    section: c.Webhook
    keys: tuple[bytes, ...]
    teller: Teller
    delivery: Delivery
    transport: OwnedTransport
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            stack.enter_context(self.scope)
            await stack.enter_async_context(self.transport)
            await self.delivery.run()


class Webhooks:
    """Deliveries run in a nursery of the application, each until the configuration has it otherwise."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        nursery: trio.Nursery,
        clock: Callable[[], float],
        instance: str,
        *,
        shared: bool,
    ) -> None:
        """`instance`: this run of the daemon; `shared`: other nodes may have the same rows."""
        self._rows = OutboxRows(database)
        self._outbox = outbox
        self._nursery = nursery
        self._clock = clock
        self._instance = instance
        self._shared = shared
        self._made: dict[str, _Made] = {}
        self.sinks = Sinks(self._rows, outbox, clock)

    async def prepare(self, config: c.Config) -> Callable[[], None]:
        """Read secrets and certificates. What is returned puts them in force.

        Raises CannotStart; then nothing has changed.
        """
        teller = self._teller(config)
        made = {section.name: await self._prepared(section, teller) for section in config.webhooks}
        sinks = [Sink(section.name, section.kinds, section.repositories) for section in config.webhooks]

        def enter() -> None:
            before, self._made = self._made, made
            for name, old in before.items():
                if made.get(name) is not old:
                    old.scope.cancel()
            for name, new in made.items():
                if before.get(name) is not new:
                    self._nursery.start_soon(new.run)
            self._outbox.sinks = tuple(sinks)
            self.sinks.deliveries = {name: each.delivery for name, each in made.items()}
            for each in made.values():
                each.delivery.resume()

        return enter

    def _teller(self, config: c.Config) -> Teller:
        return Teller(
            config.server.external_url.rstrip("/"),
            socket.gethostname(),
            self._instance,
            registries={upstream.prefix: upstream.registry for upstream in config.upstreams},
        )

    async def _prepared(self, section: c.Webhook, teller: Teller) -> _Made:
        keys, context = await secrets(section), await _context(section)
        before = self._made.get(section.name)
        same = before is not None and (before.section, before.keys, before.teller) == (section, keys, teller)
        if before is not None and same and section.ca is None:  # which may be another under the same name
            return before
        proxy = None if section.proxy is None else Proxy.parse(section.proxy)
        dialer = Dialer(AddressGate(section.allow_addresses), context, proxy=proxy)
        transport = OwnedTransport(dialer, max_idle=SIDE_BY_SIDE, idle_seconds=IDLE)
        receiver = Receiver(section.url, transport, self._clock, f"cacheproxy/{__version__}")
        delivery = Delivery(
            Hook(section.name, section.format, keys, receiver),
            self._rows,
            self._outbox,
            teller,
            self._clock,
            self._instance,
            shared=self._shared,
            chance=random.random,
        )
        return _Made(section, keys, teller, delivery, transport)


async def secrets(section: c.Webhook) -> tuple[bytes, ...]:
    """What it is signed with. Raises CannotStart."""
    if section.secret is None:
        return ()
    try:
        return parse_secrets(await read_secret(wiring.secret(section.secret)))
    except (CredentialsFailed, BadSecret) as error:
        raise wiring.CannotStart(f"webhook {section.name}: its secret: {error}") from error


async def tried(section: c.Webhook) -> None:
    """What the file holds that is named. Raises CannotStart."""
    await secrets(section)
    await _context(section)


async def _context(section: c.Webhook) -> ssl.SSLContext:
    try:
        return await trio.to_thread.run_sync(client_context, section.ca)
    except (OSError, ssl.SSLError) as error:
        raise wiring.CannotStart(f"webhook {section.name}: its ca cannot be used: {error}") from error
