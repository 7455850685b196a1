"""The one way in for clients: parse, route, access, handler. Failures become answers here and nowhere
else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import structlog

from cacheproxy.api.admission import Admission
from cacheproxy.api.answers import Query, manifest_headers, names
from cacheproxy.api.behalf import Behalf
from cacheproxy.api.by import noted_by
from cacheproxy.api.caller import Caller
from cacheproxy.api.callers import REALM
from cacheproxy.api.distribution import Distribution, ping
from cacheproxy.api.hosting import Hosted
from cacheproxy.api.made import API_VERSION, NOSNIFF, Whose, error_answer, made_ready, not_now
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.api.virtual import Virtuals
from cacheproxy.core import operations as ops
from cacheproxy.core.blob import BlobBroken
from cacheproxy.core.errors import OCIError, Unavailable
from cacheproxy.core.failures import UpstreamError, to_client
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.rights import NEEDS, Right, methods
from cacheproxy.core.routing import Bare, Routes, Target, Via, Virtual
from cacheproxy.edge.message import BodyBroken, BodyTooLarge, Peer, Ready, Request, Response
from cacheproxy.registry.flights import FlightLost
from cacheproxy.registry.manifests import PulledManifest
from cacheproxy.registry.origin import RememberedMissing
from cacheproxy.registry.repositories import unknown

log = structlog.get_logger()

REDIRECT = 307

SENT_ON = 10.0
"""Seconds for which one redirect is the answer to all: little of an address's time, and soon the blob is
looked for, and noted as read, once more.
"""

_MISSING_CODES: dict[type, str] = {
    ops.Manifest: "MANIFEST_UNKNOWN",
    ops.Blob: "BLOB_UNKNOWN",
    ops.Tags: "NAME_UNKNOWN",
    ops.Referrers: "NAME_UNKNOWN",
}


BEGINNINGS = frozenset({(ops.Uploads, "POST"), (ops.Manifest, "PUT")})
"""With which a push may make its repository: nothing else has a reason to."""


class TokenAnswers(Protocol):
    async def answer(self, request: Request) -> Response:
        """Raises OCIError."""
        ...


class Door:
    """The application behind the edge (edge.message.Application)."""

    def __init__(
        self,
        routes: Routes,
        callers: Admission,
        distribution: Distribution,
        hosted: Hosted | None,
        ready: ReadyAnswers,
        via: str,
        clock: Callable[[], float] = time.time,
        tokens: TokenAnswers | None = None,
        behalf: Mapping[str, Behalf] = MappingProxyType({}),
        virtuals: Virtuals | None = None,
    ) -> None:
        """`hosted` None: nothing is hosted, and nothing can be pushed. `tokens` None: nobody has a name.

        `behalf`: the upstreams that decide for themselves who may read them, by prefix.
        """
        self._routes = routes
        self._callers = callers
        self._distribution = distribution
        self._hosted = hosted
        self._ready = ready
        self._via = via
        """Our name in the Via header of what we ask upstream: a request that has it has come full circle."""
        self._clock = clock
        self._tokens = tokens
        self._behalf = behalf
        self._virtuals = virtuals

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        if "if-none-match" in headers:
            return None
        host, now = headers.get("host", ""), self._clock()
        found = self._ready.get((False, method, host, target), now)
        if found is None and "range" not in headers and self._distribution.redirects(peer, headers):
            found = self._ready.get((True, method, host, target), now)
        if found is None:
            return None
        ready, repository = found
        caller = self._callers.known(headers, peer)
        return ready if caller is not None and caller.may(Right.PULL, repository) else None

    async def handle(self, request: Request) -> Response:
        structlog.contextvars.bind_contextvars(request=request.id)
        try:
            response = await self._answer(request)
        except OCIError as error:
            response = error_answer(error, request)
        except (BodyTooLarge, BodyBroken):
            raise
        except Unavailable as error:
            log.warning("request not served", target=request.target, error=str(error))
            response = error_answer(not_now(error.told), request)
        except Exception as error:
            log.exception("request failed", target=request.target)
            fault = type(error).__name__
            message = f"this is a fault of cacheproxy ({fault}); its log has the rest under this request"
            response = error_answer(OCIError("UNKNOWN", message, status=500), request)
        response.headers = [API_VERSION, NOSNIFF, *response.headers]
        return response

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        error = OCIError("UNSUPPORTED" if status < 500 else "UNAVAILABLE", message, status=status)
        return Response(status, [API_VERSION, ("Content-Type", "application/json")], error.body(request_id))

    async def _answer(self, request: Request) -> Response:
        if self._via in request.headers.get("via", ""):
            raise OCIError(
                "UNSUPPORTED", "an upstream of this daemon is this daemon: see upstream.url", status=508
            )
        own = self._routes.by_caller(request.host)
        if own is not None:
            return await self._at_home(self._behalf[own], request)
        if request.path == REALM and self._tokens is not None:
            return await self._tokens.answer(request)
        operation = ops.parse(request.path)
        method = "GET" if request.method == "HEAD" else request.method
        need = self._need(operation, method)
        caller = await self._callers.identify(request)
        if method != "GET":
            noted_by(caller, request)
        if isinstance(operation, ops.Ping):
            return self._ping(request, caller)
        query = parse_query(request.query)
        if isinstance(operation, ops.Catalog):
            return await self._catalog(request, query, caller)
        meant = self._routes.meaning(operation.name, first(query, "ns"), request.host)
        if isinstance(meant, Virtual):
            assert need is not None
            self._admitted(request, caller, need, meant.name)
            if need is Right.PULL and not _would_push(operation, meant, request, caller):
                return await self._through(operation, meant, request, query, caller)
            meant = self._pushed(meant, need, request, caller)
        place = await self._place(operation, meant, need, caller, request)
        if isinstance(place, Target):
            response = await self._cached(operation, place, request, query)
            if response.status >= 400 and isinstance(meant, Bare) and self._may_begin(meant.name, caller):
                # Who pushes there asks first what is there, and goes on only if nothing is: a default
                # upstream that fails, or refuses, has no say in it.
                response.status = 404
            return response
        assert self._hosted is not None
        if isinstance(operation, ops.Manifest) and method == "GET":
            era = self._ready.era
            pulled = await self._hosted.manifest(operation, place)
            return self._manifest(operation, Whose(place), request, pulled, era)
        return await self._hosted.answer(operation, method, place, request, query, caller)

    async def _at_home(self, behalf: Behalf, request: Request) -> Response:
        """At the own host of an upstream that decides for itself: nothing of ours is asked, and none told."""
        if request.path == REALM:
            return await behalf.token(request)
        operation = ops.parse(request.path)
        need = self._need(operation, "GET" if request.method == "HEAD" else request.method)
        if isinstance(operation, ops.Ping):
            return behalf.ping(request)
        if need is not Right.PULL:
            said = f"{request.host} is {behalf.upstream}'s: what it has can be pulled through, and no more"
            raise OCIError("UNSUPPORTED" if need is None else "DENIED", said)
        assert isinstance(operation, ops.Manifest | ops.Blob | ops.Tags | ops.Referrers)
        query = parse_query(request.query)
        target = self._routes.meaning(operation.name, first(query, "ns"), request.host)
        if not isinstance(target, Target) or target.upstream != behalf.upstream:
            raise OCIError("NAME_UNKNOWN", f"{request.host} is {behalf.upstream}'s alone")
        try:
            await behalf.admit(operation, target, request)
        except UpstreamError as error:
            return error_answer(to_client(error, target.via, _MISSING_CODES[type(operation)]), request)
        return await self._cached(operation, target, request, query)

    def _need(self, operation: ops.Operation, method: str) -> Right | None:
        """The right that it takes. Raises OCIError for a method that means nothing here."""
        key = (type(operation), method)
        if key not in NEEDS:
            allowed = (("Allow", ", ".join(methods(type(operation)))),)
            raise OCIError("UNSUPPORTED", f"{method} is not supported here", headers=allowed)
        if self._hosted is None and NEEDS[key] not in (None, Right.PULL):
            said = f"{method} is not supported here: no account is configured, so this is only a cache"
            code = "UNSUPPORTED" if NEEDS[key] is Right.DELETE else "DENIED"
            raise OCIError(code, said, headers=(("Allow", "GET, HEAD"),))
        return NEEDS[key]

    def _ping(self, request: Request, caller: Caller) -> Response:
        if self._callers.challenges(request):
            raise self._callers.challenge(request)
        if not caller.anything():
            raise self._callers.refusal(request, caller, None, None)
        return ping()

    async def _catalog(self, request: Request, query: Query, caller: Caller) -> Response:
        if self._hosted is None:
            raise OCIError("UNSUPPORTED", "a pull-through cache has no list of repositories", status=404)
        if not caller.anything():
            raise self._callers.refusal(request, caller, None, None)
        return await self._hosted.catalog(request, query, caller)

    async def _place(
        self,
        operation: ops.Operation,
        meant: Target | Bare,
        need: Right | None,
        caller: Caller,
        request: Request,
    ) -> Target | str:
        """Where the request goes: to an upstream, or to a hosted repository, by name.

        Raises OCIError unless the caller has the right there. Who has none does not learn what there is.
        """
        assert need is not None
        if isinstance(meant, Bare) and self._hosted is not None:
            if await self._hosted.has(meant.name):
                return self._admitted(request, caller, need, meant.name)
            if need is not Right.PULL:
                self._admitted(request, caller, need, meant.name)
                if (type(operation), request.method) not in BEGINNINGS:
                    raise unknown(meant.name)
                return self._hosted.foreseen(meant.name, caller)
        target = self._beyond(meant, caller) if isinstance(meant, Bare) else meant
        if target is None:
            assert isinstance(meant, Bare)
            self._admitted(request, caller, need, meant.name)
            if self._hosted is not None and isinstance(operation, ops.Referrers):
                # Nothing refers to anything there: an empty list (spec, "Listing Referrers").
                return meant.name
            elsewhere = "no upstream is the default" if meant.default is None else "that is all you may read"
            raise OCIError(
                "NAME_UNKNOWN",
                f"there is no repository {meant.name} here, and {elsewhere}",
                detail={"name": meant.name},
            )
        if need is not Right.PULL:
            said = (
                f"{target.repository} is an upstream's: what it has can be pulled through, and not be changed"
            )
            raise OCIError("DENIED", said)
        # Refused by the name that a hosted repository would be refused by: which it is, is not told.
        shown = meant.name if isinstance(meant, Bare) and self._hosted is not None else target.repository
        self._admitted(request, caller, need, target.repository, shown)
        return target

    def _beyond(self, meant: Bare, caller: Caller) -> Target | None:
        """The default upstream's image of that name, unless the caller may read no other than a hosted one.

        Who pushes into a repository that is not there yet asks first what it has, and must hear "nothing".
        Below a template's prefix all names are ours: nobody elsewhere can put an image there.
        """
        default = meant.default
        if self._hosted is not None and self._hosted.covers(meant.name):
            return None
        if default is None or self._hosted is None or caller.may(Right.PULL, default.repository):
            return default
        return None if caller.may(Right.PULL, meant.name) else default

    def _may_begin(self, name: str, caller: Caller) -> bool:
        return self._hosted is not None and self._hosted.creatable(name, caller)

    def _admitted(
        self, request: Request, caller: Caller, need: Right, repository: str, shown: str | None = None
    ) -> str:
        if not self._callers.admits(request, caller, need, repository):
            raise self._callers.refusal(request, caller, need, shown or repository)
        return repository

    async def _through(
        self, operation: ops.Operation, meant: Virtual, request: Request, query: Query, caller: Caller
    ) -> Response:
        """The first of its places that has it. Nothing is made ready: more than one right counts."""
        assert self._virtuals is not None
        try:
            if not isinstance(operation, ops.Manifest):
                return await self._virtuals.answer(operation, meant, request, query, caller)
            pulled, upstream = await self._virtuals.manifest(operation, meant, request, caller)
        except UpstreamError as error:
            return error_answer(to_client(error, Via.PREFIX, _MISSING_CODES[type(operation)]), request)
        except (BlobBroken, FlightLost) as error:
            return error_answer(not_now(str(error)), request)
        whose = Whose(meant.name, upstream, local=False)
        response = self._manifest(operation, whose, request, pulled, self._ready.era)
        response.upstream = upstream
        return response

    def _pushed(self, meant: Virtual, need: Right, request: Request, caller: Caller) -> Bare:
        if meant.push is None:
            said = f"{meant.name} is virtual, and no push is configured for it: push to one of its members"
            raise OCIError("DENIED", said)
        self._admitted(request, caller, need, meant.push, meant.name)
        return Bare(meant.push, None)

    async def _cached(
        self, operation: ops.Operation, target: Target, request: Request, query: Query
    ) -> Response:
        response = await self._pull(operation, target, request, query)
        response.upstream = target.upstream
        if target.namespace is not None:
            response.headers = [*response.headers, ("OCI-Namespace", target.namespace)]
        return response

    async def _pull(
        self,
        operation: ops.Operation,
        target: Target,
        request: Request,
        query: Query,
    ) -> Response:
        try:
            if isinstance(operation, ops.Manifest):
                era = self._ready.era
                pulled = await self._distribution.manifest(operation, target)
                whose = self._whose(target)
                return self._manifest(operation, whose, request, pulled, era)
            return await self._other(operation, target, request, query)
        except UpstreamError as error:
            response = error_answer(to_client(error, target.via, _MISSING_CODES[type(operation)]), request)
            response.outcome = "negative" if isinstance(error, RememberedMissing) else "miss"
            return response
        except (BlobBroken, FlightLost) as error:
            return error_answer(not_now(str(error)), request)
        except OCIError as error:
            return error_answer(error, request)

    async def _other(
        self,
        operation: ops.Operation,
        target: Target,
        request: Request,
        query: Query,
    ) -> Response:
        """All but manifests. A redirect to all of a blob is kept for whoever asks next."""
        era = self._ready.era
        response = await self._distribution.answer(operation, target, request, query)
        whose = self._whose(target)
        if response.status == REDIRECT and whose.local and "range" not in request.headers:
            now = self._clock()
            ready = made_ready(request.method, whose, list(response.headers), b"", REDIRECT)
            key = (True, request.method, request.host, request.target)
            self._ready.put(key, ready, target.repository, now, now + SENT_ON, era)
        return response

    def _whose(self, target: Target) -> Whose:
        local = target.upstream not in self._behalf
        return Whose(target.repository, target.upstream, target.namespace, local)

    def _manifest(
        self,
        operation: ops.Manifest,
        whose: Whose,
        request: Request,
        pulled: PulledManifest,
        era: int,
    ) -> Response:
        headers = manifest_headers(pulled, operation.reference)
        if names(request.headers.get("if-none-match"), pulled.digest):
            return Response(304, headers, outcome=pulled.outcome)
        now = self._clock()
        if pulled.fresh_until > now and whose.local:
            key = (False, request.method, request.host, request.target)
            ready = made_ready(request.method, whose, headers, pulled.body)
            self._ready.put(key, ready, whose.repository, now, pulled.fresh_until, era)
        return Response(200, headers, pulled.body, outcome=pulled.outcome)


def _would_push(operation: ops.Operation, meant: Virtual, request: Request, caller: Caller) -> bool:
    """Who may push asks by HEAD which blobs are there already: where it pushes, and not behind that."""
    if meant.push is None or not isinstance(operation, ops.Blob) or request.method != "HEAD":
        return False
    return caller.may(Right.PUSH, meant.name) and caller.may(Right.PUSH, meant.push)
