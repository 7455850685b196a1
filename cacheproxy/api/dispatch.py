"""The one way in for clients: parse, route, access, handler. Failures become answers here and nowhere
else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus

import structlog

from cacheproxy.api.answers import Headers, manifest_headers, names
from cacheproxy.api.distribution import Distribution, ping
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.core import operations as ops
from cacheproxy.core.access import Access
from cacheproxy.core.blob import BlobBroken
from cacheproxy.core.errors import OCIError, Unavailable
from cacheproxy.core.failures import UpstreamError, to_client
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.routing import Routes, Target
from cacheproxy.edge.message import Address, BodyBroken, BodyTooLarge, Peer, Ready, Request, Response
from cacheproxy.registry.flights import FlightLost
from cacheproxy.registry.manifests import PulledManifest
from cacheproxy.registry.origin import RememberedMissing

log = structlog.get_logger()

API_VERSION = ("Docker-Distribution-API-Version", "registry/2.0")
NOSNIFF = ("X-Content-Type-Options", "nosniff")

READS = ("GET", "HEAD")
WRITES = frozenset({"POST", "PUT", "PATCH"})

REDIRECT = 307

SENT_ON = 10.0
"""Seconds for which one redirect is the answer to all: little of an address's time, and soon the blob is
looked for, and noted as read, once more.
"""

CLASSES_KEPT = 4096
"""Addresses whose access class is remembered."""

_MISSING_CODES: dict[type, str] = {
    ops.Manifest: "MANIFEST_UNKNOWN",
    ops.Blob: "BLOB_UNKNOWN",
    ops.Tags: "NAME_UNKNOWN",
    ops.Referrers: "NAME_UNKNOWN",
}


class Door:
    """The application behind the edge (edge.message.Application)."""

    def __init__(
        self,
        routes: Routes,
        access: Access,
        distribution: Distribution,
        ready: ReadyAnswers,
        via: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = routes
        self._access = access
        self._distribution = distribution
        self._ready = ready
        self._via = via
        """Our name in the Via header of what we ask upstream: a request that has it has come full circle."""
        self._clock = clock
        self._classes: dict[Address | None, int] = {}

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        if "if-none-match" in headers:
            return None
        mask, host, now = self._class_of(peer), headers.get("host", ""), self._clock()
        ready = self._ready.get((mask, method, host, target), now)
        if ready is None and "range" not in headers and self._distribution.redirects(peer, headers):
            return self._ready.get((~mask, method, host, target), now)
        return ready

    async def handle(self, request: Request) -> Response:
        structlog.contextvars.bind_contextvars(request=request.id)
        try:
            response = await self._answer(request)
        except OCIError as error:
            response = _error(error, request)
        except (BodyTooLarge, BodyBroken):
            raise
        except Unavailable as error:
            log.warning("request not served", target=request.target, error=str(error))
            response = _error(_not_now(error.told), request)
        except Exception as error:
            log.exception("request failed", target=request.target)
            fault = type(error).__name__
            message = f"this is a fault of cacheproxy ({fault}); its log has the rest under this request"
            response = _error(OCIError("UNKNOWN", message, status=500), request)
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
        _allow(request.method)
        operation = ops.parse(request.path)
        mask = self._class_of(request.peer)
        if isinstance(operation, ops.Ping):
            self._admit(request, mask, None)
            return ping()
        if isinstance(operation, ops.Catalog | ops.Uploads | ops.Upload):
            raise OCIError("UNSUPPORTED", "a pull-through cache has no such list", status=404)
        query = parse_query(request.query)
        target = self._routes.resolve(operation.name, first(query, "ns"), request.host)
        self._admit(request, mask, target.repository)
        response = await self._pull(operation, target, request, query, mask)
        response.upstream = target.upstream
        if target.namespace is not None:
            response.headers = [*response.headers, ("OCI-Namespace", target.namespace)]
        return response

    async def _pull(
        self,
        operation: ops.Operation,
        target: Target,
        request: Request,
        query: dict[str, list[str]],
        mask: int,
    ) -> Response:
        try:
            if isinstance(operation, ops.Manifest):
                era = self._ready.era
                pulled = await self._distribution.manifest(operation, target)
                return self._manifest(operation, target, request, mask, pulled, era)
            return await self._other(operation, target, request, query, mask)
        except UpstreamError as error:
            response = _error(to_client(error, target.via, _MISSING_CODES[type(operation)]), request)
            response.outcome = "negative" if isinstance(error, RememberedMissing) else "miss"
            return response
        except (BlobBroken, FlightLost) as error:
            return _error(_not_now(str(error)), request)
        except OCIError as error:
            return _error(error, request)

    async def _other(
        self,
        operation: ops.Operation,
        target: Target,
        request: Request,
        query: dict[str, list[str]],
        mask: int,
    ) -> Response:
        """All but manifests. A redirect to all of a blob is kept for whoever asks next."""
        era = self._ready.era
        response = await self._distribution.answer(operation, target, request, query)
        if response.status == REDIRECT and "range" not in request.headers:
            now = self._clock()
            ready = _ready(request.method, target, list(response.headers), b"", REDIRECT)
            key = (~mask, request.method, request.host, request.target)
            self._ready.put(key, ready, now, now + SENT_ON, era)
        return response

    def _manifest(
        self,
        operation: ops.Manifest,
        target: Target,
        request: Request,
        mask: int,
        pulled: PulledManifest,
        era: int,
    ) -> Response:
        headers = manifest_headers(pulled, operation.reference)
        if names(request.headers.get("if-none-match"), pulled.digest):
            return Response(304, headers, outcome=pulled.outcome)
        now = self._clock()
        if pulled.fresh_until > now:
            key = (mask, request.method, request.host, request.target)
            ready = _ready(request.method, target, headers, pulled.body)
            self._ready.put(key, ready, now, pulled.fresh_until, era)
        return Response(200, headers, pulled.body, outcome=pulled.outcome)

    def _admit(self, request: Request, mask: int, repository: str | None) -> None:
        """Raises OCIError DENIED unless the caller may pull `repository` (None: anything at all)."""
        allowed = (
            self._access.anything(mask) if repository is None else self._access.may_pull(mask, repository)
        )
        if allowed:
            return
        what = "this registry" if repository is None else repository
        who = str(request.peer.address or "a unix socket's peer")
        if request.peer.forwarded_by_stranger:
            who += " (which sends X-Forwarded-For, but is not in server.trusted_proxies)"
        raise OCIError(
            "DENIED", f"{who} may not pull from {what}: access.anonymous_pull has no entry that allows it"
        )

    def _class_of(self, peer: Peer) -> int:
        if peer.forwarded_by_stranger:
            return 0
        known = self._classes.get(peer.address)
        if known is None:
            if len(self._classes) >= CLASSES_KEPT:
                self._classes.clear()
            known = self._classes[peer.address] = self._access.classify(peer.address)
        return known


def _allow(method: str) -> None:
    """Raises OCIError for a method that would change something, or means nothing here."""
    if method in READS:
        return
    headers = (("Allow", ", ".join(READS)),)
    if method in WRITES:
        raise OCIError("DENIED", "nothing can be pushed here: this is a pull-through cache", headers=headers)
    raise OCIError("UNSUPPORTED", f"{method} is not supported here", headers=headers)


def _not_now(message: str) -> OCIError:
    return OCIError("UNAVAILABLE", message, status=503, headers=(("Retry-After", "5"),))


def _error(error: OCIError, request: Request) -> Response:
    headers: Headers = [("Content-Type", "application/json"), *error.headers]
    return Response(error.status, headers, error.body(request.id))


def _ready(method: str, target: Target, headers: Headers, body: bytes, status: int = 200) -> Ready:
    namespace = [] if target.namespace is None else [("OCI-Namespace", target.namespace)]
    fields = [API_VERSION, NOSNIFF, *headers, *namespace, ("Content-Length", str(len(body)))]
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields
    )
    return Ready(head.encode("ascii"), b"" if method == "HEAD" else body, "hit", target.upstream, status)
