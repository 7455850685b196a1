"""Requests of clients, as the first spans of what they lead to.

Which requests are traced is decided here, before anything is made: by a share, or by a caller whose word
counts. All others cost a random number.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import NamedTuple

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cacheproxy.core import operations as ops
from cacheproxy.core import trace
from cacheproxy.core.errors import OCIError
from cacheproxy.edge.message import Application, Exchange, Log, Network, Peer, Ready, Request, Response
from cacheproxy.request_log import logged_target
from cacheproxy.tracing.spans import NOWHERE, Recorded

_W3C = TraceContextTextMapPropagator()

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
"""Others are strangers' inventions, and "_OTHER" (semantic conventions for HTTP spans)."""

_ROUTES: Mapping[type, str] = {
    ops.Ping: "/v2/",
    ops.Catalog: "/v2/_catalog",
    ops.Manifest: "/v2/{name}/manifests/{reference}",
    ops.Blob: "/v2/{name}/blobs/{digest}",
    ops.Uploads: "/v2/{name}/blobs/uploads/",
    ops.Upload: "/v2/{name}/blobs/uploads/{session}",
    ops.Tags: "/v2/{name}/tags/list",
    ops.Referrers: "/v2/{name}/referrers/{digest}",
}

_ahead: ContextVar[Context | None] = ContextVar("ahead", default=None)
"""The parent of a span that is made once the answer, which was ready, is out."""


class Sampling(NamedTuple):
    share: float
    """Of the requests that nobody else decided about: 0 to 1."""
    trusted: Sequence[Network] = ()
    """Whose `traceparent` counts, and decides. A stranger's would let him write into others' traces, and fill
    the collector."""

    def parent(self, headers: dict[str, str], peer: Peer) -> Context | None:
        """What the request's span belongs to; None: it is not traced."""
        if "traceparent" in headers and self._trusts(peer):
            context = _W3C.extract(headers, NOWHERE)
            theirs = get_current_span(context).get_span_context()
            if theirs.is_valid:
                return context if theirs.trace_flags.sampled else None
        return NOWHERE if random.random() < self.share else None  # noqa: S311 - nobody's secret

    def _trusts(self, peer: Peer) -> bool:
        address = peer.address
        return (
            address is not None
            and not peer.forwarded_by_stranger
            and any(address in network for network in self.trusted)
        )


class Traced:
    """An application whose requests are traced (edge.message.Application), and the log of its requests."""

    def __init__(
        self,
        application: Application,
        log: Log,
        tracer: Tracer,
        sampling: Sampling,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._application = application
        self._log = log
        self._tracer = tracer
        self._sampling = sampling
        self._clock = clock
        self._open: dict[str, Recorded] = {}
        """By the request's id. Each is logged once, whatever happens, and leaves then."""

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        ready = self._application.immediate(method, target, headers, peer)
        if ready is not None:
            parent = self._sampling.parent(headers, peer)
            if parent is not None:
                _ahead.set(parent)
        return ready

    async def handle(self, request: Request) -> Response:
        parent = self._sampling.parent(request.headers, request.peer)
        if parent is not None:
            span = Recorded.of_a_request(self._tracer, parent, self._clock())
            self._open[request.id] = span
            trace.current.set(span)
            structlog.contextvars.bind_contextvars(trace=span.trace)
        return await self._application.handle(request)

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return self._application.refuse(status, message, request_id)

    def log(self, exchange: Exchange) -> None:
        """Called by the task that asked (edge.message.Log)."""
        span = self._open.pop(exchange.id, None)
        if span is not None:
            trace.current.set(None)
            structlog.contextvars.unbind_contextvars("trace")
            self._finish(span, exchange)
        elif (parent := _ahead.get()) is not None:
            _ahead.set(None)
            self._finish(Recorded.of_a_request(self._tracer, parent, exchange.started), exchange)
        self._log(exchange)

    def _finish(self, span: Recorded, exchange: Exchange) -> None:
        exchange.trace = span.trace
        span.rename(_name(exchange))
        span.note(_attributes(exchange))
        if exchange.status >= 500:
            span.fail(str(exchange.status))
        elif exchange.aborted:
            span.fail(exchange.aborted)
        span.end(exchange.started + exchange.seconds)


def _name(exchange: Exchange) -> str:
    operation = _operation(exchange)
    return _method(exchange) if operation is None else f"{_method(exchange)} {_ROUTES[type(operation)]}"


def _method(exchange: Exchange) -> str:
    return exchange.method if exchange.method in _METHODS else "_OTHER"


def _operation(exchange: Exchange) -> ops.Operation | None:
    try:
        return ops.parse(exchange.target.partition("?")[0])
    except OCIError:
        return None


def _attributes(exchange: Exchange) -> dict[str, str | int | float]:
    """Empty ones are left out."""
    path, _, query = logged_target(exchange.target).partition("?")
    operation = _operation(exchange)
    attributes: dict[str, str | int | float] = {
        "http.request.method": _method(exchange),
        "http.response.status_code": exchange.status,
        "http.response.body.size": exchange.sent,
        "url.scheme": exchange.peer.scheme,
        "url.path": path,
        "url.query": query,
        "client.address": str(exchange.peer.address or "unix"),
        "user_agent.original": exchange.user_agent,
        "cacheproxy.request": exchange.id,
        "cacheproxy.outcome": exchange.outcome,
        "cacheproxy.upstream": exchange.upstream,
        "cacheproxy.aborted": exchange.aborted,
    }
    if operation is not None:
        attributes["http.route"] = _ROUTES[type(operation)]
        attributes["oci.operation"] = type(operation).__name__.lower()
        attributes["oci.repository"] = getattr(operation, "name", "")
    return {name: value for name, value in attributes.items() if value != ""}
