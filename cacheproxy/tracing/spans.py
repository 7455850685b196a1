"""Spans as OpenTelemetry's SDK has them."""

from __future__ import annotations

import os
from typing import Self

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from cacheproxy import __version__
from cacheproxy.core.trace import Attributes

NOWHERE = Context()
"""A span without a parent begins a trace."""

_NANOSECONDS = 1_000_000_000


def tracer(processor: SpanProcessor) -> Tracer:
    """Makes spans that go to `processor`. Whether there is one was decided before: all that is made is kept.

    The resource is ours with what $OTEL_RESOURCE_ATTRIBUTES and $OTEL_SERVICE_NAME say.
    """
    ours = {"service.name": "cacheproxy", "service.version": __version__, "host.name": os.uname().nodename}
    named = os.environ.get("OTEL_SERVICE_NAME")
    resource = Resource.create({**ours, "service.name": named} if named else ours)
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("cacheproxy", __version__)


class Recorded:
    """A span that is collected (core.trace.Span)."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    @classmethod
    def of_a_request(cls, tracer: Tracer, parent: Context, started: float) -> Self:
        """`started` is time.time()."""
        span = tracer.start_span(
            "HTTP", parent, SpanKind.SERVER, start_time=int(started * _NANOSECONDS), record_exception=False
        )
        return cls(tracer, span)

    @property
    def trace(self) -> str:
        """The id of its trace, 32 hex digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def child(self, name: str, *, client: bool = False) -> Self:
        kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
        return self._made(self._tracer.start_span(name, set_span_in_context(self._span, NOWHERE), kind))

    def apart(self, name: str) -> Self:
        links = [Link(self._span.get_span_context())]
        span = self._made(self._tracer.start_span(name, NOWHERE, links=links))
        self.link(span)
        return span

    def link(self, other: Self) -> None:
        self._span.add_link(other._span.get_span_context())

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, at: float | None = None) -> None:
        """`at` is time.time(); None: now."""
        self._span.end(None if at is None else int(at * _NANOSECONDS))

    def _made(self, span: Span) -> Self:
        return type(self)(self._tracer, span)
