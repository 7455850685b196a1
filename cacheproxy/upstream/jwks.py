"""Where an issuer of tokens publishes its keys: OpenID Connect Discovery 1.0, section 4, and RFC 8414."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import httpx
import msgspec
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.body import Chunks, check_identity, read_whole
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.exchange import Ask, Sender
from cacheproxy.upstream.pacing import Lane
from cacheproxy.upstream.redirects import STATUSES as REDIRECTS
from cacheproxy.upstream.transport import OwnedTransport

SECONDS = 10.0
"""For everything: both documents, with their names, addresses and handshakes."""

LARGEST = 256 << 10
"""Bytes of a document. Those that there are have 1 to 20 KiB."""

DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """Where the keys of an issuer are, and by which way we get there. Plain values, checked before."""

    issuer: str
    jwks_uri: str = ""
    """"": the issuer's own document says it."""
    proxy: str = ""
    allow_addresses: tuple[IPv4Network | IPv6Network, ...] = ()


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """A JWK set, asked for anew each time: seldom, so that no connection waits for the next one."""

    settings: IssuerSettings
    dialer: Dialer = field(repr=False)

    async def fetch(self) -> bytes:
        """The set, as it came. Raises UpstreamError."""
        with trio.move_on_after(SECONDS):
            async with OwnedTransport(self.dialer) as transport:
                return await self._fetch(transport)
        raise self._failure(Cause.TIMEOUT, f"no answer within {SECONDS:.0f} s")

    async def _fetch(self, transport: OwnedTransport) -> bytes:
        place = self.settings.jwks_uri
        if not place:
            said = await self._get(transport, self.settings.issuer.rstrip("/") + DISCOVERY)
            place = self._discovered(said)
        return await self._get(transport, place)

    def _discovered(self, said: bytes) -> str:
        try:
            document = msgspec.json.decode(said, type=_Discovery)
        except (ValueError, RecursionError):
            raise self._failure(Cause.PROTOCOL, "its discovery document names no jwks_uri") from None
        if document.issuer != self.settings.issuer:
            what = f"its discovery document is of another issuer, {document.issuer[:200]!a}"
            raise self._failure(Cause.PROTOCOL, what)
        if self.settings.issuer.startswith("https://") and not document.jwks_uri.startswith("https://"):
            raise self._failure(Cause.GATE, "its discovery document names a jwks_uri without TLS")
        return document.jwks_uri

    async def _get(self, transport: OwnedTransport, place: str) -> bytes:
        try:
            url = httpx.URL(place)
        except httpx.InvalidURL:
            raise self._failure(Cause.PROTOCOL, "its discovery document names no jwks_uri") from None
        headers = [
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "cacheproxy"),
        ]
        sender = Sender(self.settings.issuer, transport, SECONDS)
        ask = Ask("GET", url, headers, "keys", Lane.CONTROL)
        response = await sender.send(ask, None, trio.current_effective_deadline())
        try:
            return await self._body(response, url.host)
        finally:
            await response.aclose()

    async def _body(self, response: httpx.Response, host: str) -> bytes:
        status = response.status_code
        if status in REDIRECTS:
            raise self._failure(Cause.GATE, f"{host} redirects, which is not followed: set jwks_uri", status)
        if status != 200:
            raise self._failure(Cause.SERVER, f"{host} answered {status}", status)
        check_identity(response, self.settings.issuer)
        chunks = Chunks(response, host, self.settings.issuer, SECONDS, rate=0)
        try:
            return await read_whole(chunks, LARGEST, self.settings.issuer)
        finally:
            await chunks.aclose()

    def _failure(self, cause: Cause, what: str, status: int | None = None) -> UpstreamError:
        return UpstreamError(cause, what, self.settings.issuer, status=status)
