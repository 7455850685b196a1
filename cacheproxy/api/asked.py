"""What clients ask of a token server, and what they hear (distribution, "Token Authentication")."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from cacheproxy.api.answers import JSON, Query
from cacheproxy.core.credentials import Login, parse_basic
from cacheproxy.core.errors import OCIError
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.scopes import Scope, Token, parse_scopes, written
from cacheproxy.edge.message import Request, Response

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


async def asked(request: Request) -> Asked:
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


def given(text: str, token: Token, refresh: str | None = None) -> Response:
    """The answer with a token."""
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
