"""The token server: /token, as docker's clients ask (distribution, "Token Authentication")."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from cacheproxy.api.answers import JSON, Query
from cacheproxy.api.caller import Caller
from cacheproxy.api.callers import Callers
from cacheproxy.api.credentials import Credentials
from cacheproxy.core.credentials import Login, parse_basic
from cacheproxy.core.errors import OCIError
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.rights import Principal, Right
from cacheproxy.core.routing import Bare, Routes
from cacheproxy.core.scopes import EVERYWHERE, Actions, Scope, Token, parse_scopes, written
from cacheproxy.edge.message import Address, Request, Response
from cacheproxy.registry.refresh import RefreshTokens
from cacheproxy.registry.tokens import Tokens

MAX_FORM = 16 * 1024
"""Bytes of a POST."""


class Asked(NamedTuple):
    login: Login | None
    """None: by nobody by name."""
    scopes: list[Scope]
    refresh: str | None
    """A refresh token in place of a login."""
    offline: bool
    """It wants one."""
    host: str
    """Where the token is to be used: names mean something else at an upstream's own host."""


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
        asked = await _asked(request)
        principal = await self._principal(asked, request.peer.address)
        caller = self._callers.of(request.peer, principal)
        if principal is None and not caller.anything():
            raise unauthorized("nothing here is for everybody: log in")
        granted = self._granted(asked, caller)
        text, token = self._tokens.issue(None if principal is None else principal.name, granted)
        # Nobody hears a refresh token that HEAD would make.
        if principal is None or not asked.offline or request.method == "HEAD":
            return _answer(text, token)
        return _answer(text, token, asked.refresh or await self._refresh.give(principal))

    def _granted(self, asked: Asked, caller: Caller) -> Actions:
        """What was asked for, as far as the caller may: what it lacks is left out, and a request tells."""
        granted: dict[str, frozenset[str]] = {}
        for scope in asked.scopes:
            for name in self._names(scope.name, asked.host):
                some = {action for action in scope.actions if _may(caller, action, name)}
                if some:
                    granted[name] = granted.get(name, frozenset()) | some
        return granted

    async def _principal(self, asked: Asked, address: Address | None) -> Principal | None:
        if asked.refresh is not None:
            principal = await self._refresh.principal(asked.refresh)
            if principal is None:
                raise unauthorized("the refresh token is not valid (any more): log in again")
            return principal
        if asked.login is None:
            return None
        principal = await self._credentials.login(asked.login, address)
        if principal is None:
            raise unauthorized("the name or the password is wrong")
        return principal

    def _names(self, name: str, host: str) -> tuple[str, ...]:
        """The canonical names that a client may mean: as it is (in our challenges), and as it is routed.

        A bare name may be a hosted repository or an image of the default upstream: who may have both gets
        both.
        """
        try:
            meant = self._routes.meaning(name, None, host)
        except OCIError:
            return (name,)
        if not isinstance(meant, Bare):
            return (name, meant.repository)
        return (meant.name,) if meant.default is None else (meant.name, meant.default.repository)


def _may(caller: Caller, action: str, repository: str) -> bool:
    """Whether the caller has the right that the action is named after."""
    return repository == EVERYWHERE or caller.may(Right(action), repository)


async def _asked(request: Request) -> Asked:
    """Raises OCIError; lets pass what reading the body raises."""
    said = request.headers.get("authorization")
    login = None if said is None else parse_basic(said)
    if said is not None and login is None:
        raise unauthorized("only a name and a password (Basic) get a token here")
    if request.method in ("GET", "HEAD"):
        query = parse_query(request.query)
        return _put_together(query, request, login, None, first(query, "offline_token") == "true")
    if request.method != "POST":
        allow = ("Allow", "GET, HEAD, POST")
        raise OCIError("UNSUPPORTED", "a token is asked for by GET or POST", headers=(allow,))
    form = _form(await request.read_body(MAX_FORM))
    login, refresh = _granting(form)
    return _put_together(form, request, login, refresh, first(form, "access_type") == "offline")


def _put_together(
    query: Query, request: Request, login: Login | None, refresh: str | None, offline: bool
) -> Asked:
    host = first(query, "service") or request.host
    return Asked(login, parse_scopes(query.get("scope", ())), refresh, offline, host)


def _form(body: bytes) -> Query:
    """application/x-www-form-urlencoded, where a blank is "+". Raises OCIError (400)."""
    try:
        return parse_query(body.decode("ascii").replace("+", "%20"))
    except UnicodeDecodeError:
        raise OCIError("UNSUPPORTED", "the form is not well-formed", status=400) from None


def _granting(form: Query) -> tuple[Login | None, str | None]:
    """A login (RFC 6749, section 4.3) or a refresh token (section 6). Who is told 400 asks by GET."""
    kind, name, password = (first(form, field) for field in ("grant_type", "username", "password"))
    if kind == "password" and name and password:
        return Login(name, password), None
    refresh = first(form, "refresh_token")
    if kind == "refresh_token" and refresh:
        return None, refresh
    raise OCIError(
        "UNSUPPORTED",
        "the form needs grant_type=password with username and password, or grant_type=refresh_token with"
        " refresh_token",
        status=400,
    )


def _answer(text: str, token: Token, refresh: str | None = None) -> Response:
    said = {
        "token": text,
        "access_token": text,
        "expires_in": int(token.until - token.issued),
        "issued_at": datetime.fromtimestamp(token.issued, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": " ".join(written(name, some) for name, some in token.actions.items()),
    }
    if refresh is not None:
        said["refresh_token"] = refresh
    return Response(200, [("Content-Type", JSON), ("Cache-Control", "no-store")], msgspec.json.encode(said))


def unauthorized(said: str) -> OCIError:
    """A challenge for the token server itself, where clients send a name and a password and nothing else."""
    return OCIError("UNAUTHORIZED", said, headers=(("WWW-Authenticate", 'Basic realm="cacheproxy"'),))
