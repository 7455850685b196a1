"""From a request to who sends it: the network that it comes from, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cacheproxy.api.caller import Caller, Scope
from cacheproxy.core.access import Access
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal, Right, Rules
from cacheproxy.edge.message import Address, Peer, Request

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
    until: float = 0.0
    """Wall clock: when a token ends."""


class Authenticator(Protocol):
    async def identify(self, authorization: str, address: Address | None) -> Identity | None:
        """What an Authorization header proves; None: nothing. Raises OCIError 429 for a flood of guesses."""
        ...


class Callers:
    def __init__(
        self,
        access: Access,
        rules: Rules,
        authenticator: Authenticator | None,
        external_url: str,
        clock: Callable[[], float],
    ) -> None:
        """`authenticator` None: there are no accounts, and credentials are not looked at."""
        self._access = access
        self._rules = rules
        self._authenticator = authenticator
        self._external_url = external_url
        self._clock = clock
        self._by_address: dict[Address | None, tuple[int, Caller]] = {}
        self._by_credentials: dict[tuple[str, int], Caller] = {}

    def known(self, headers: Mapping[str, str], peer: Peer) -> Caller | None:
        """The caller, if nothing has to be looked up for it."""
        mask, anonymous = self._of_network(peer)
        authorization = headers.get("authorization")
        if authorization is None or self._authenticator is None:
            return anonymous
        caller = self._by_credentials.get((authorization, mask))
        return caller if caller is not None and self._clock() < caller.until else None

    async def identify(self, request: Request) -> Caller:
        """Raises OCIError 401 for credentials that prove nothing."""
        caller = self.known(request.headers, request.peer)
        if caller is not None:
            return caller
        assert self._authenticator is not None
        authorization = request.headers["authorization"]
        identity = await self._authenticator.identify(authorization, request.peer.address)
        if identity is None:
            raise self._unauthorized(request, "the credentials are not valid (any more)", "invalid_token")
        mask, _ = self._of_network(request.peer)
        until = self._clock() + TRUSTED_FOR
        if identity.until:
            until = min(until, identity.until)
        caller = Caller(identity.principal, mask, self._access, self._rules, identity.scope, until)
        if len(self._by_credentials) >= REMEMBERED:
            self._by_credentials.clear()
        self._by_credentials[authorization, mask] = caller
        return caller

    def of(self, peer: Peer, principal: Principal | None) -> Caller:
        """Who just proved its name, or gives none, for one request."""
        mask, anonymous = self._of_network(peer)
        return anonymous if principal is None else Caller(principal, mask, self._access, self._rules)

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
        return OCIError("DENIED", f"{caller.name} may not {right} in {what}: no [[grant]] allows it")

    def challenges(self, request: Request) -> bool:
        """Whether a ping of this request is answered with a challenge: with accounts, unless it has a token.

        Docker and podman learn from it alone that there are tokens, also for what is public.
        """
        return self._authenticator is not None and "authorization" not in request.headers

    def challenge(self, request: Request) -> OCIError:
        return self._unauthorized(request, "log in, or ask for an anonymous token")

    def _unauthorized(self, request: Request, said: str, error: str = "", scope: str = "") -> OCIError:
        """A challenge (RFC 6750, section 3). Always Bearer: dockerd passes over a mirror that says Basic."""
        base = self._external_url or f"{request.peer.scheme}://{request.host}"
        fields = {"realm": f"{base}{REALM}", "service": request.host, "scope": scope, "error": error}
        told = ",".join(f'{name}="{value}"' for name, value in fields.items() if value)
        return OCIError("UNAUTHORIZED", said, headers=(("WWW-Authenticate", f"Bearer {told}"),))

    def _of_network(self, peer: Peer) -> tuple[int, Caller]:
        if peer.forwarded_by_stranger:
            return 0, Caller(None, 0, self._access, self._rules)
        known = self._by_address.get(peer.address)
        if known is None:
            if len(self._by_address) >= REMEMBERED:
                self._by_address.clear()
            mask = self._access.classify(peer.address)
            known = mask, Caller(None, mask, self._access, self._rules)
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
