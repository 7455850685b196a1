"""The token server: /token, as docker's clients ask (distribution, "Token Authentication")."""

from __future__ import annotations

from cacheproxy.api.asked import Asked, asked, given, unauthorized
from cacheproxy.api.caller import Caller
from cacheproxy.api.callers import Callers
from cacheproxy.api.credentials import Credentials
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal, Right
from cacheproxy.core.routing import Bare, Routes, Virtual
from cacheproxy.core.scopes import EVERYWHERE, Actions
from cacheproxy.edge.message import Peer, Request, Response
from cacheproxy.registry.federation import Proven, Refused
from cacheproxy.registry.refresh import RefreshTokens
from cacheproxy.registry.tokens import Tokens


class TokenServer:
    def __init__(
        self,
        tokens: Tokens,
        refresh: RefreshTokens,
        credentials: Credentials,
        callers: Callers,
        routes: Routes,
    ) -> None:
        self._tokens = tokens
        self._refresh = refresh
        self._credentials = credentials
        self._callers = callers
        self._routes = routes

    async def answer(self, request: Request) -> Response:
        """Raises OCIError: 401 for a login that proves nothing, 400 for what is malformed, 405."""
        wanted = await asked(request)
        try:
            who = await self._principal(wanted, request.peer)
        except Refused as error:
            raise unauthorized(str(error)) from error
        if isinstance(who, Proven):
            return self._vouched(wanted, request.peer, who)
        caller = self._callers.of(request.peer, who)
        if who is None and not caller.anything():
            raise unauthorized("nothing here is for everybody: log in")
        text, token = self._tokens.issue(None if who is None else who.name, self._granted(wanted, caller))
        # Nobody hears a refresh token that HEAD would make.
        if who is None or not wanted.offline or request.method == "HEAD":
            return given(text, token)
        return given(text, token, wanted.refresh or await self._refresh.give(who))

    def _vouched(self, wanted: Asked, peer: Peer, who: Proven) -> Response:
        """No longer than what was shown is good, and no refresh token: who vouches is asked again."""
        granted = self._granted(wanted, self._callers.of(peer, who.principal))
        text, token = self._tokens.issue(who.principal.name, granted, who.proof, who.until)
        if token.until <= token.issued:
            raise unauthorized("the token that stands for a password has expired")
        return given(text, token)

    def _granted(self, wanted: Asked, caller: Caller) -> Actions:
        """What was asked for, as far as the caller may: what it lacks is left out, and a request tells."""
        granted: dict[str, frozenset[str]] = {}
        for scope in wanted.scopes:
            for name in self._names(scope.name, wanted.host):
                some = {action for action in scope.actions if _may(caller, action, name)}
                if some:
                    granted[name] = granted.get(name, frozenset()) | some
        return granted

    async def _principal(self, wanted: Asked, peer: Peer) -> Principal | Proven | None:
        """Raises Refused, OCIError."""
        if wanted.refresh is not None:
            principal = await self._refresh.principal(wanted.refresh)
            if principal is None:
                raise unauthorized("the refresh token is not valid (any more): log in again")
            return principal
        if wanted.login is None:
            return None if peer.certificate is None else await self._credentials.shown(peer.certificate)
        who = await self._credentials.login(wanted.login, peer.address)
        if who is None:
            raise unauthorized("the name or the password is wrong")
        return who

    def _names(self, name: str, host: str) -> tuple[str, ...]:
        """The canonical names that a client may mean: as it is (in our challenges), and as it is routed.

        A bare name may be a hosted repository or an image of the default upstream: who may have both gets
        both.
        """
        try:
            meant = self._routes.meaning(name, None, host)
        except OCIError:
            return (name,)
        if isinstance(meant, Virtual):
            return (meant.name, *meant.places)
        if not isinstance(meant, Bare):
            return (name, meant.repository)
        return (meant.name,) if meant.default is None else (meant.name, meant.default.repository)


def _may(caller: Caller, action: str, repository: str) -> bool:
    """Whether the caller has the right that the action is named after."""
    return repository == EVERYWHERE or caller.may(Right(action), repository)
