"""The Authorization header for one endpoint: Basic, or a bearer token per scope.

A registry says by a challenge what it wants; what it said is remembered, so that a repository costs one 401
and not one a token. Whoever needs a token that is being fetched waits for it and shares what comes of it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.challenge import Challenge, parse
from cacheproxy.upstream.credentials import Account, Credentials, CredentialsFailed
from cacheproxy.upstream.realms import Realms
from cacheproxy.upstream.tokenserver import Realm, Token, TokenServer

log = structlog.get_logger()

SCOPES = 1024
"""Most scopes whose tokens are kept; the one not asked for longest goes first."""

LONGEST_FIELD = 1024
"""Characters of a challenge's scope or service."""

AHEAD_SHARE, AHEAD_SECONDS = 0.1, 30.0
"""A token is fetched anew while the old one has this share of its life left, or this many seconds."""

RENEWAL_PAUSE = 10.0
"""Seconds before a renewal that failed is tried again; the old token goes on meanwhile."""


@dataclass(slots=True, eq=False)
class _Scope:
    """What is known about one scope."""

    realm: Realm | None = None
    """By its last challenge; None: to be learned from the next."""
    header: str | None = None
    expires: float = -math.inf
    renew: float = -math.inf
    """From then on (trio's clock) whoever asks starts a renewal."""
    lock: trio.Lock = field(default_factory=trio.Lock)
    """Held while its token is fetched."""
    fetches: int = 0
    """Ended ones: with those who waited for one, it shares `failure`."""
    failure: UpstreamError | None = None

    def valid(self) -> str | None:
        return self.header if trio.current_time() < self.expires else None


class Authorizer:
    """For one endpoint: credentials that are its host's, realms that it may name."""

    def __init__(
        self, upstream: str, account: Account, realms: Realms, server: TokenServer, nursery: trio.Nursery
    ) -> None:
        self._upstream = upstream
        self._account = account
        self._realms = realms
        self._server = server
        self._nursery = nursery
        self._basic = False
        """It asked for Basic last, and is sent it from then on."""
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()

    async def header(self, scope: str) -> str | None:
        """What to send with a first try; None: nothing, until it asks. Raises UpstreamError."""
        if self._basic:
            credentials = await self._credentials()
            return None if credentials is None else credentials.basic
        known = self._scopes.get(scope)
        if known is None:
            return None
        self._scopes.move_to_end(scope)
        if (header := known.valid()) is not None:
            self._renew_soon(known)
            return header
        return await self._shared(known, known.realm, refused=None) if known.realm is not None else None

    async def answer(self, challenges: str, scope: str, refused: str | None) -> str:
        """What to send after a 401 with these challenges; `refused` is what was sent before.

        Raises UpstreamError: AUTH when there is nothing better to send, GATE for a realm we do not go to.
        """
        asked = {challenge.scheme: challenge for challenge in reversed(parse(challenges))}
        if "bearer" in asked:
            self._basic = False
            realm = self._realm(asked["bearer"], scope)
            return await self._shared(self._scope(scope), realm, refused)
        if "basic" in asked:
            return await self._answer_basic(refused)
        schemes = ", ".join(asked)[:100] or "nothing"
        raise self._denied(f"answered 401 and asks for {schemes}, not for Bearer or Basic")

    # Basic

    async def _answer_basic(self, refused: str | None) -> str:
        credentials = await self._credentials()
        if credentials is not None and credentials.basic == refused:
            self._account.doubt(credentials)
            credentials = await self._credentials()
        if credentials is None:
            raise self._denied("asks for a password, and none is configured")
        if credentials.basic == refused:
            raise self._denied("refuses the configured credentials")
        self._basic = True
        return credentials.basic

    async def _credentials(self) -> Credentials | None:
        try:
            return await self._account.current()
        except CredentialsFailed as error:
            log.error("no credentials", upstream=self._upstream, reason=str(error))  # noqa: TRY400 - not a bug
            raise UpstreamError(
                Cause.AUTH,
                "was not asked: the credentials for it cannot be had (see the log)",
                self._upstream,
            ) from error

    # Bearer

    def _realm(self, challenge: Challenge, scope: str) -> Realm:
        """Some registries name a scope of their own (public.ecr.aws: "aws"); without one we ask for ours."""
        given = challenge.parameters
        service, wanted = given.get("service", ""), given.get("scope", "") or scope
        if max(len(service), len(wanted)) > LONGEST_FIELD:
            raise UpstreamError(Cause.PROTOCOL, "sends an oversized challenge", self._upstream)
        return Realm(self._realms.check(given.get("realm", "")), service, wanted)

    def _scope(self, scope: str) -> _Scope:
        known = self._scopes.setdefault(scope, _Scope())
        self._scopes.move_to_end(scope)
        if len(self._scopes) > SCOPES:
            self._scopes.popitem(last=False)
        return known

    async def _shared(self, known: _Scope, realm: Realm, refused: str | None) -> str:
        """A valid token other than `refused`, by the fetch that is under way or by one of our own."""
        seen = known.fetches
        async with known.lock:
            header = known.valid()
            if header is not None and header != refused:
                return header
            if known.fetches != seen and known.failure is not None:
                raise known.failure.with_traceback(None)  # else it would grow with each who raises it
            return await self._fetch(known, realm)

    async def _fetch(self, known: _Scope, realm: Realm) -> str:
        """With the scope's lock held."""
        try:
            token = await self._token(realm)
        except UpstreamError as error:
            known.realm, known.failure = None, error
            known.fetches += 1
            raise
        now = trio.current_time()
        known.realm, known.failure, known.fetches = realm, None, known.fetches + 1
        known.header = f"Bearer {token.text}"
        known.expires = now + token.seconds
        known.renew = known.expires - max(AHEAD_SHARE * token.seconds, AHEAD_SECONDS)
        return known.header

    async def _token(self, realm: Realm) -> Token:
        credentials = await self._credentials()
        try:
            return await self._server.fetch(realm, credentials)
        except UpstreamError as error:
            if credentials is None or error.status != 401:
                raise
            self._account.doubt(credentials)
            fresh = await self._credentials()
            if fresh == credentials:
                raise
        return await self._server.fetch(realm, fresh)

    def _renew_soon(self, known: _Scope) -> None:
        if trio.current_time() >= known.renew and known.realm is not None:
            known.renew = math.inf  # one renewal at a time
            self._nursery.start_soon(self._renew, known, known.realm)

    async def _renew(self, known: _Scope, realm: Realm) -> None:
        """Raises nothing but cancellation: it runs in a nursery that all upstreams share."""
        held = known.header
        try:
            await self._shared(known, realm, refused=held)
        except UpstreamError as error:
            log.warning("token not renewed", upstream=self._upstream, reason=error.message)
        except Exception:
            log.exception("token not renewed", upstream=self._upstream)
        else:
            return
        known.realm, known.renew = realm, trio.current_time() + RENEWAL_PAUSE

    def _denied(self, what: str) -> UpstreamError:
        return UpstreamError(Cause.AUTH, what, self._upstream, status=401)
