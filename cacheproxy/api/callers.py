"""From a request to who sends it: the network that it comes from, and what it says of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cacheproxy.api.caller import Caller, Scope
from cacheproxy.core.access import Access
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal, Right, Rules
from cacheproxy.edge.message import Address, ClientCertificate, Peer, Request
from cacheproxy.registry.federation import Refused

REMEMBERED = 4096
"""Addresses, and credentials, whose callers are remembered."""

REALM = "/token"
"""Where challenges send clients."""

TRUSTED_FOR = 60.0
"""Seconds that what was proven once is believed: within them a revoked right ends."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What credentials prove."""

    principal: Principal | None
    """None: a token for who gives no name."""
    scope: Scope | None = None
    """None: all that the principal may."""
    until: float = math.inf
    """Wall clock: when a token ends."""


class Authenticator(Protocol):
    async def identify(self, authorization: str, address: Address | None) -> Identity | None:
        """What an Authorization header proves; None: nothing. Raises Refused for what is not good, with the
        reason, and OCIError 429 for a flood of guesses."""
        ...

    async def certificate(self, shown: ClientCertificate) -> Identity | None:
        """Whose that is; None: nobody's. Raises Refused."""
        ...


class Standing(Protocol):
    """Who may do what now."""

    @property
    def era(self) -> int:
        """Another one whenever an account, or what somebody may do, has changed."""
        ...

    @property
    def rules(self) -> Rules: ...


class Network(NamedTuple):
    """What is known of who comes from one."""

    mask: int
    """Of what it may pull without a name."""
    unbound: int
    """Of the rules that do not hold there."""


Shown = tuple[str, str]
"""What somebody says of itself, and by which way: a certificate and a header are never the same."""


def _shown(headers: Mapping[str, str], peer: Peer) -> Shown | None:
    """A header is meant for this request, a certificate for all of its connection: the header counts."""
    authorization = headers.get("authorization")
    if authorization is not None:
        return "authorization", authorization
    return None if peer.certificate is None else ("certificate", peer.certificate.fingerprint)


class Callers:
    def __init__(
        self,
        access: Access,
        standing: Standing,
        authenticator: Authenticator | None,
        external_url: str,
        clock: Callable[[], float],
        ages: Callable[[], float] = time.monotonic,
    ) -> None:
        """`authenticator` None: there are no accounts, and credentials are not looked at.

        `clock` is the wall's, which says when a token ends; `ages` is one that nobody sets back.
        """
        self._access = access
        self._standing = standing
        self._era = standing.era
        self._authenticator = authenticator
        self._external_url = external_url
        self._clock = clock
        self._ages = ages
        self._by_address: dict[Address | None, tuple[Network, Caller]] = {}
        self._by_credentials: dict[tuple[Shown, Network], tuple[Caller, float]] = {}
        """With the age until which each is believed."""

    def known(self, headers: Mapping[str, str], peer: Peer) -> Caller | None:
        """The caller, if nothing has to be looked up for it."""
        network, anonymous = self._of_network(peer)
        shown = _shown(headers, peer)
        if shown is None or self._authenticator is None:
            return anonymous
        known = self._by_credentials.get((shown, network))
        if known is None:
            return None
        caller, believed = known
        return caller if self._ages() < believed and self._clock() < caller.until else None

    async def identify(self, request: Request) -> Caller:
        """Raises OCIError 401 for credentials that prove nothing."""
        caller = self.known(request.headers, request.peer)
        if caller is not None:
            return caller
        shown = _shown(request.headers, request.peer)
        assert shown is not None
        era = self._standing.era
        identity = await self._proven(request)
        network, _ = self._of_network(request.peer)
        caller = self._caller(identity.principal, network, identity.scope, identity.until)
        if era != self._standing.era:
            return caller  # for this one request: what was looked up may be another by now
        if len(self._by_credentials) >= REMEMBERED:
            self._by_credentials.clear()
        self._by_credentials[shown, network] = caller, self._ages() + TRUSTED_FOR
        return caller

    async def _proven(self, request: Request) -> Identity:
        """Raises OCIError."""
        assert self._authenticator is not None
        authorization, peer = request.headers.get("authorization"), request.peer
        try:
            if authorization is not None:
                identity = await self._authenticator.identify(authorization, peer.address)
            else:
                assert peer.certificate is not None
                identity = await self._authenticator.certificate(peer.certificate)
        except Refused as error:
            raise self._unauthorized(request, str(error), "invalid_token") from error
        if identity is None:
            raise self._unauthorized(request, "the credentials are not valid (any more)", "invalid_token")
        return identity

    def of(self, peer: Peer, principal: Principal | None) -> Caller:
        """Who just proved its name, or gives none, for one request."""
        network, anonymous = self._of_network(peer)
        return anonymous if principal is None else self._caller(principal, network)

    def admits(self, request: Request, caller: Caller, right: Right, repository: str) -> bool:
        return caller.may(right, repository)

    def refusal(
        self, request: Request, caller: Caller, right: Right | None, repository: str | None
    ) -> OCIError:
        """Why the caller does not get what it wants, and how it might: a token, or nothing."""
        what = "this registry" if repository is None else repository
        if self._authenticator is None:
            return _denied(request, what)
        wanted = "" if right is None or repository is None else f"repository:{repository}:{_actions(right)}"
        if caller.principal is None and not caller.scoped:
            return self._unauthorized(request, f"{what} is not for everybody: log in", scope=wanted)
        if caller.scoped:
            said = f"the token is not for {right} in {what}, or {caller.name} may not"
            return self._unauthorized(request, said, "insufficient_scope", wanted)
        return OCIError(
            "DENIED", f"{caller.name} may not {right} in {what}: no grant allows it, or one denies it"
        )

    def challenges(self, request: Request) -> bool:
        """Whether a ping of this request is answered with a challenge: with accounts, unless it gives a name.

        Docker and podman learn from it alone that there are tokens, also for what is public.
        """
        return self._authenticator is not None and _shown(request.headers, request.peer) is None

    def challenge(self, request: Request) -> OCIError:
        return self._unauthorized(request, "log in, or ask for an anonymous token")

    def _unauthorized(self, request: Request, said: str, error: str = "", scope: str = "") -> OCIError:
        """A challenge (RFC 6750, section 3). Always Bearer: dockerd passes over a mirror that says Basic."""
        base = self._external_url or f"{request.peer.scheme}://{request.host}"
        fields = {"realm": f"{base}{REALM}", "service": request.host, "scope": scope, "error": error}
        told = ",".join(f'{name}="{value}"' for name, value in fields.items() if value)
        return OCIError("UNAUTHORIZED", said, headers=(("WWW-Authenticate", f"Bearer {told}"),))

    def _caller(
        self,
        principal: Principal | None,
        network: Network,
        scope: Scope | None = None,
        until: float = math.inf,
    ) -> Caller:
        mask, unbound = network
        return Caller(principal, mask, self._access, self._standing.rules, scope, until, unbound)

    def _of_network(self, peer: Peer) -> tuple[Network, Caller]:
        if self._era != self._standing.era:
            self._era = self._standing.era
            self._by_address.clear()
            self._by_credentials.clear()
        if peer.forwarded_by_stranger:
            nowhere = Network(0, self._standing.rules.classify(None, anywhere=True))
            return nowhere, self._caller(None, nowhere)
        known = self._by_address.get(peer.address)
        if known is None:
            if len(self._by_address) >= REMEMBERED:
                self._by_address.clear()
            network = Network(
                self._access.classify(peer.address), self._standing.rules.classify(peer.address)
            )
            known = network, self._caller(None, network)
            self._by_address[peer.address] = known
        return known


def _denied(request: Request, what: str) -> OCIError:
    who = str(request.peer.address or "a unix socket's peer")
    if request.peer.forwarded_by_stranger:
        who += " (which sends X-Forwarded-For, but is not in server.trusted_proxies)"
    return OCIError(
        "DENIED", f"{who} may not pull from {what}: access.anonymous_pull has no entry that allows it"
    )


def _actions(right: Right) -> str:
    """As docker's clients ask: a pusher reads, too."""
    return "pull,push" if right in (Right.PUSH, Right.CREATE) else str(right)
