"""An upstream asked for its callers: each one's login becomes what the upstream takes, as by its own clients.

A login goes to a realm that `realms.py` lets pass, or, where the upstream asks for Basic, to the upstream
itself. No account of ours has a part in it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import trio

from cacheproxy.core import operations
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.asking import Asker, Call, Endpoint
from cacheproxy.upstream.challenge import Challenge, parse
from cacheproxy.upstream.credentials import Credentials
from cacheproxy.upstream.realms import Realms
from cacheproxy.upstream.tokens import LONGEST_FIELD
from cacheproxy.upstream.tokenserver import LONGEST, Realm, TokenServer

SCOPES = 1024
"""Most scopes for which something is lent; the one not asked for longest goes first."""

LENT = 8
"""Most callers' headers that are kept for one scope."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the upstream takes from one caller."""

    header: str | None = field(repr=False)
    """None: it asks nobody for anything."""
    seconds: float
    """How long it is good for, from when it was given."""


class Presented:
    """One header and no other (asking.Authorizer)."""

    def __init__(self, upstream: str, header: str | None) -> None:
        self._upstream = upstream
        self._header = header

    async def header(self, scope: str) -> str | None:
        return self._header

    async def answer(self, challenges: str, scope: str, refused: str | None) -> str:
        raise UpstreamError(Cause.AUTH, "refuses what the caller has for it", self._upstream, status=401)


class Lent:
    """What callers lend, each for a repository in which its right is proven (asking.Authorizer).

    A fill is nobody's, and everybody who waits for it has the right: any of them will do, the newest first.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._scopes: OrderedDict[str, dict[str | None, float]] = OrderedDict()

    def lend(self, scope: str, header: str | None, until: float) -> None:
        """Until a time of trio's clock."""
        lent = self._scopes.setdefault(scope, {})
        self._scopes.move_to_end(scope)
        lent.pop(header, None)  # to the end: the newest
        lent[header] = until
        if len(lent) > LENT:
            del lent[next(iter(lent))]
        if len(self._scopes) > SCOPES:
            self._scopes.popitem(last=False)

    async def header(self, scope: str) -> str | None:
        return next(iter(self._good(scope)), None)

    async def answer(self, challenges: str, scope: str, refused: str | None) -> str:
        self._scopes.get(scope, {}).pop(refused, None)
        for header in self._good(scope):
            if header is not None:
                return header
        what = "answered 401, and no caller who may read it has been here for some minutes"
        raise UpstreamError(Cause.AUTH, what, self._upstream, status=401)

    def _good(self, scope: str) -> list[str | None]:
        now = trio.current_time()
        lent = self._scopes.get(scope, {})
        return [header for header, until in reversed(lent.items()) if now < until]


class _Challenged(Exception):
    def __init__(self, challenges: str) -> None:
        self.challenges = challenges


class _Nobody:
    """Sends nothing, to hear what would be wanted (asking.Authorizer)."""

    async def header(self, scope: str) -> str | None:
        return None

    async def answer(self, challenges: str, scope: str, refused: str | None) -> str:
        raise _Challenged(challenges)


class Delegation:
    """For the one endpoint of an upstream: mirrors are not shown what callers have for it."""

    def __init__(
        self, upstream: str, endpoint: Endpoint, asker: Asker, realms: Realms, server: TokenServer, lent: Lent
    ) -> None:
        self._upstream = upstream
        self._endpoint = endpoint
        self._asker = asker
        self._realms = realms
        self._server = server
        self._lent = lent

    def lend(self, repository: str, header: str | None, until: float) -> None:
        """What is asked for in that repository may be asked with this, `until` a time of trio's clock."""
        self._lent.lend(pull(repository), header, until)

    async def heard(self, deadline: float) -> None:
        """That it speaks the API, and asks callers who they are where it may. Raises UpstreamError."""
        asked = await self._challenges(None, deadline)
        if asked is not None and "bearer" in asked:
            self._realm(asked["bearer"], "")

    async def exchange(
        self, credentials: Credentials | None, repository: str | None, deadline: float
    ) -> Held:
        """What a caller gets for its login (None: it has none); for a repository, or none (`docker login`).

        Raises UpstreamError: AUTH with status 401 for a login that proves nothing.
        """
        with trio.CancelScope(deadline=deadline):
            return await self._exchange(credentials, repository, deadline)
        raise UpstreamError(Cause.TIMEOUT, "gave no token in time", self._upstream)

    async def _exchange(
        self, credentials: Credentials | None, repository: str | None, deadline: float
    ) -> Held:
        asked = await self._challenges(repository, deadline)
        if asked is None:
            return Held(None, LONGEST)
        if "bearer" in asked:
            scope = "" if repository is None else pull(repository)
            token = await self._server.fetch(self._realm(asked["bearer"], scope), credentials)
            return Held(f"Bearer {token.text}", token.seconds)
        if "basic" in asked:
            return await self._basic(credentials, deadline)
        schemes = ", ".join(asked)[:100] or "nothing"
        raise self._refused(f"answered 401 and asks for {schemes}, not for Bearer or Basic")

    async def _challenges(self, repository: str | None, deadline: float) -> dict[str, Challenge] | None:
        """By scheme; None: it wants to know nothing. What it says of all may not be what it says of one."""
        targets = [operations.path(operations.Ping())]
        if repository is not None:
            targets.append(f"{operations.path(operations.Tags(repository))}?n=1")
        unnamed = replace(self._endpoint, authorizer=_Nobody())
        for target in targets:
            call = Call("GET", target, "ping", "", accepts=frozenset({200, 403, 404}), deadline=deadline)
            try:
                async with self._asker.ask(unnamed, call):
                    pass
            except _Challenged as challenged:
                return {challenge.scheme: challenge for challenge in reversed(parse(challenged.challenges))}
        return None

    def _realm(self, challenge: Challenge, scope: str) -> Realm:
        """Some registries name a scope of their own for everything (public.ecr.aws: "aws")."""
        given = challenge.parameters
        service, named = given.get("service", ""), given.get("scope", "")
        if max(len(service), len(named)) > LONGEST_FIELD:
            raise UpstreamError(Cause.PROTOCOL, "sends an oversized challenge", self._upstream)
        return Realm(self._realms.check(given.get("realm", "")), service, named or scope)

    async def _basic(self, credentials: Credentials | None, deadline: float) -> Held:
        if credentials is None:
            raise self._refused("asks for a name and a password")
        known = replace(self._endpoint, authorizer=Presented(self._upstream, credentials.basic))
        call = Call("GET", operations.path(operations.Ping()), "ping", "", deadline=deadline)
        async with self._asker.ask(known, call):
            return Held(credentials.basic, LONGEST)

    def _refused(self, what: str) -> UpstreamError:
        return UpstreamError(Cause.AUTH, what, self._upstream, status=401)


def pull(repository: str) -> str:
    """The scope of a token that reads it."""
    return f"repository:{repository}:pull"
