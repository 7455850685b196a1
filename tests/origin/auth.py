"""Basic and Bearer at the origin: challenges, and a token endpoint that grants what it is asked for."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from tests.origin.plan import Plan, document, error
from tests.origin.seen import Seen

if TYPE_CHECKING:
    from tests.origin.server import Origin

_BASIC = 'Basic realm="origin"'


def challenge(origin: Origin, seen: Seen, now: float) -> Plan | None:
    """A 401, or None: go on."""
    if origin.auth is None:
        return None
    if origin.auth == "basic":
        if not _known(origin, seen):
            return _unauthorized(_BASIC)
        return None if _may_read(origin, seen, seen.repo) else error(403, "DENIED", "not yours")
    failure = _token_failure(origin, seen, now)
    return None if failure is None else _unauthorized(_bearer(origin, seen, failure))


def issue(origin: Origin, seen: Seen, now: float) -> Plan:
    """The answer of GET /token."""
    trusted = origin.anonymous if seen.authorization is None else _known(origin, seen)
    if not trusted:
        return _unauthorized(_BASIC)
    token = secrets.token_urlsafe(24)
    scopes = " ".join(seen.query.get("scope", [])).split()
    asked = (scope.partition(":")[2].rpartition(":")[0] for scope in scopes)
    granted = frozenset(name for name in asked if _may_read(origin, seen, name))
    origin.tokens[token] = (granted, now + origin.token_seconds)
    return document({"token": token, "access_token": token, "expires_in": origin.token_seconds})


def _known(origin: Origin, seen: Seen) -> bool:
    user, password = _login(seen)
    return user is not None and origin.users.get(user) == password


def _may_read(origin: Origin, seen: Seen, repository: str) -> bool:
    return repository not in origin.readers or _login(seen)[0] in origin.readers[repository]


def _login(seen: Seen) -> tuple[str | None, str]:
    scheme, _, given = (seen.authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None, ""
    user, _, password = base64.b64decode(given).decode().partition(":")
    return user, password


def _token_failure(origin: Origin, seen: Seen, now: float) -> str | None:
    """What to say of the token: "" when there is none, None when it is good."""
    scheme, _, token = (seen.authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        return ""
    repositories, until = origin.tokens.get(token, (frozenset(), now))
    if now >= until:
        return "invalid_token"
    return None if not seen.repo or seen.repo in repositories else "insufficient_scope"


def _bearer(origin: Origin, seen: Seen, failure: str) -> str:
    realm = origin.realm or f"{origin.url}/token"
    scope = f',scope="repository:{seen.repo}:pull"' if seen.repo else ""
    return f'Bearer realm="{realm}",service="origin"{scope}' + (f',error="{failure}"' if failure else "")


def _unauthorized(challenge: str) -> Plan:
    return error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
