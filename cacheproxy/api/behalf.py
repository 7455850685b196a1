"""The own host of an upstream that decides for itself who may read it: callers are who they are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from cacheproxy.api.asked import asked, given, unauthorized
from cacheproxy.api.distribution import ping
from cacheproxy.core import operations as ops
from cacheproxy.core.credentials import Login, parse_bearer
from cacheproxy.core.errors import OCIError
from cacheproxy.core.failures import Cause, UpstreamError, to_client
from cacheproxy.core.routing import Routes, Target, Via
from cacheproxy.core.scopes import Scope, Token
from cacheproxy.edge.message import Request, Response
from cacheproxy.registry.authority import Authority, Ticket

MOST_REPOSITORIES = 16
"""In one token: each is asked for upstream."""

Named = ops.Manifest | ops.Blob | ops.Tags | ops.Referrers

PULL = frozenset({"pull"})


class Behalf:
    """Raises OCIError."""

    def __init__(
        self,
        authority: Authority,
        routes: Routes,
        is_ours: Callable[[Login], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        """`is_ours`: whether a login is that of an account of ours, which no upstream gets to see."""
        self.upstream = authority.upstream
        self._authority = authority
        self._routes = routes
        self._is_ours = is_ours
        self._clock = clock

    async def token(self, request: Request) -> Response:
        """GET and POST /token: what the login is worth upstream, in memory here, and a ticket for it."""
        wanted = await asked(request)
        if wanted.refresh is not None:
            raise unauthorized("no refresh tokens are given here: log in")
        if wanted.login is not None and await self._is_ours(wanted.login):
            said = (
                f"{wanted.login.name} is an account of this cacheproxy, and is not shown to {self.upstream}"
            )
            raise unauthorized(f"{said}: log in as there")
        names = self._repositories(wanted.scopes, request.host)
        try:
            text, ticket = await self._authority.ticket(wanted.login, list(names), request.peer.address)
        except UpstreamError as error:
            raise self._not_given(error, wanted.login) from error
        now = self._clock()
        actions = {names[remote]: PULL for remote in ticket.permits}
        seconds = ticket.until - trio.current_time()
        return given(text, Token(ticket.name, actions, now, now + seconds))

    def ping(self, request: Request) -> Response:
        """Clients learn from it that there are tokens, and whether theirs is good."""
        self._ticket(request, "")
        return ping()

    async def admit(self, operation: Named, target: Target, request: Request) -> None:
        """Raises unless the caller's right in the repository is proven, upstream, and not long ago."""
        scope = f"repository:{operation.name}:pull"
        ticket = self._ticket(request, scope)
        permit = ticket.permits.get(target.remote)
        if permit is None:
            said = f"the token is not for {operation.name}: ask for one that is"
            raise _challenge(request, said, scope, "insufficient_scope")
        try:
            await self._authority.prove(permit, operation, target.remote)
        except UpstreamError as error:
            if error.cause is Cause.AUTH and ticket.name is None:
                said = f"{self.upstream} does not show {operation.name} to everybody: log in as there"
                raise _challenge(request, said, scope) from error
            raise

    def _ticket(self, request: Request, scope: str) -> Ticket:
        said = request.headers.get("authorization")
        if said is None:
            raise _challenge(request, f"log in as at {self.upstream}, or ask for an anonymous token", scope)
        text = parse_bearer(said)
        ticket = None if text is None else self._authority.find(text)
        if ticket is None:
            raise _challenge(request, "the token is not valid (any more)", scope, "invalid_token")
        return ticket

    def _repositories(self, scopes: list[Scope], host: str) -> dict[str, str]:
        """What the client calls them, by what the upstream does."""
        names: dict[str, str] = {}
        for scope in scopes:
            try:
                meant = self._routes.meaning(scope.name, None, host)
            except OCIError:
                continue
            if isinstance(meant, Target) and meant.upstream == self.upstream and "pull" in scope.actions:
                names[meant.remote] = scope.name
        if len(names) > MOST_REPOSITORIES:
            said = f"a token here is for at most {MOST_REPOSITORIES} repositories"
            raise OCIError("UNSUPPORTED", said, status=400)
        return names

    def _not_given(self, error: UpstreamError, login: Login | None) -> OCIError:
        if error.cause is Cause.AUTH and error.status == 401:
            if login is None:
                return unauthorized(f"{self.upstream} gives nothing to everybody: log in as there")
            return unauthorized(f"{self.upstream} refuses the name or the password")
        return to_client(error, Via.HOST)


def _challenge(request: Request, said: str, scope: str, error: str = "") -> OCIError:
    """As `callers.Callers` writes it, for the host that was asked: no other knows its tokens."""
    realm = f"{request.peer.scheme}://{request.host}/token"
    fields = {"realm": realm, "service": request.host, "scope": scope, "error": error}
    told = ",".join(f'{name}="{value}"' for name, value in fields.items() if value)
    return OCIError("UNAUTHORIZED", said, headers=(("WWW-Authenticate", f"Bearer {told}"),))
