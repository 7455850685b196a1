"""Who vouches for whom, put together from the configuration: issuers, and authorities of certificates."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cacheproxy import config as c
from cacheproxy import wiring
from cacheproxy.config.federation import MTLS, OIDC
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal
from cacheproxy.core.subjects import Subjects, Template
from cacheproxy.registry.federation import Federation
from cacheproxy.registry.issuerkeys import Fetching, KeyRing, Pinned, parse
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.jwks import LARGEST, IssuerSettings, PublishedKeys
from cacheproxy.upstream.proxy import Proxy

if TYPE_CHECKING:
    from cacheproxy.registry.oidc import Issuer

Account = Callable[[str], Awaitable[Principal | None]]
"""Who is called that, now."""


class KeyRings:
    """What is known of issuers' keys outlives a reload, unless they are elsewhere from then on."""

    def __init__(self) -> None:
        self.fetching = Fetching()
        self._rings: Mapping[IssuerSettings, KeyRing] = {}

    async def open(self, issuers: tuple[OIDC, ...]) -> Mapping[str, KeyRing | Pinned]:
        """By issuer. None is contacted. Raises CannotStart."""
        found: dict[str, KeyRing | Pinned] = {}
        rings: dict[IssuerSettings, KeyRing] = {}
        for issuer in issuers:
            if issuer.jwks is not None:
                found[issuer.issuer] = await pinned(issuer, issuer.jwks)
                continue
            place = IssuerSettings(issuer.issuer, issuer.jwks_uri, issuer.proxy or "", issuer.allow_addresses)
            published = PublishedKeys(place, await _dialer(issuer))
            former = self._rings.get(place)
            rings[place] = found[issuer.issuer] = KeyRing(
                issuer.issuer, published.fetch, self.fetching, trio.current_time, former
            )
        self._rings = rings
        return found


async def federation(
    config: c.Config, rings: KeyRings, account: Account, clock: Callable[[], float]
) -> Federation | None:
    """None: nobody vouches for anybody. Raises CannotStart."""
    certificates = shown(config)
    if not config.access.oidc and certificates is None:
        return None
    from cacheproxy.registry.oidc import Issuers

    keys = await rings.open(config.access.oidc)
    issuers = [_issuer(issuer, keys[issuer.issuer], clock) for issuer in config.access.oidc]
    return Federation(Issuers(issuers), certificates, account, clock)


def shown(config: c.Config) -> Subjects | None:
    """Who clients' certificates are for; None: none is asked for."""
    if config.server.tls is None or config.server.tls.client_ca is None:
        return None
    section = config.access.mtls or MTLS()
    return Subjects(Template(section.principal), tuple(map(Template, section.groups)))


def _issuer(section: OIDC, keys: KeyRing | Pinned, clock: Callable[[], float]) -> Issuer:
    from cacheproxy.registry.oidc import Issuer

    required: Mapping[str, Patterns] = section.claims
    subjects = Subjects(Template(section.principal), tuple(map(Template, section.groups)), required)
    return Issuer(section.issuer, section.audience, subjects, keys, clock)


async def pinned(issuer: OIDC, file: Path) -> Pinned:
    """Raises CannotStart."""
    try:
        data = await trio.to_thread.run_sync(file.read_bytes)
        if len(data) > LARGEST:
            raise ValueError(f"has more than {LARGEST} bytes")
        return Pinned(parse(data))
    except OSError as error:
        raise wiring.CannotStart(
            f"access.oidc {issuer.issuer}: its jwks: {file}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise wiring.CannotStart(f"access.oidc {issuer.issuer}: its jwks: {file} {error}") from error


async def _dialer(issuer: OIDC) -> Dialer:
    """Raises CannotStart."""
    try:
        context = await wiring.trusting(issuer.ca)
    except (OSError, ssl.SSLError) as error:
        raise wiring.CannotStart(f"access.oidc {issuer.issuer}: its ca cannot be used: {error}") from error
    proxy = None if issuer.proxy is None else Proxy.parse(issuer.proxy)
    return Dialer(AddressGate(issuer.allow_addresses), context, proxy=proxy)
