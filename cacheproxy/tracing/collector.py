"""Traces, put together: who makes spans, what keeps them, and the client that takes them to the collector.

Where spans go is the operator's word, as for an object store or a database: it may be a private address,
and the gate of the upstreams has no say in it. No proxy and no password comes from the surroundings, and a
redirect is followed nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cacheproxy.edge.message import Application, Log
from cacheproxy.tracing.door import Sampling, Traced
from cacheproxy.tracing.outbox import Outbox
from cacheproxy.tracing.spans import tracer

PATH = "/v1/traces"
"""Below the collector's address (OTLP/HTTP)."""

PROOF_LIMIT = 5.0
"""Seconds for `unproven`, with all that the exporter tries again."""


def unproven(endpoint: str) -> str:
    """Why the collector takes no spans; "": it took a request without any. Blocking."""
    client = _Client()
    with _silent("opentelemetry"):
        exporter: SpanExporter = OTLPSpanExporter(endpoint + PATH, session=client, timeout=PROOF_LIMIT)
        result = exporter.export(())
        exporter.shutdown()
    return "" if result is SpanExportResult.SUCCESS else client.reason or "it takes no spans"


@asynccontextmanager
async def collecting(
    endpoint: str, sampling: Sampling
) -> AsyncIterator[Callable[[Application, Log], tuple[Application, Log]]]:
    """What has an application traced, with the log of its requests. Nothing is connected to before there is
    a span.

    $OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE, _TIMEOUT and the like are the exporter's to read.
    """
    client = _Client()
    outbox = Outbox(OTLPSpanExporter(endpoint + PATH, session=client), lambda: client.reason)
    spans = tracer(outbox)

    def watch(application: Application, log: Log) -> tuple[Application, Log]:
        traced = Traced(application, log, spans, sampling)
        return traced, traced.log

    with _silent("opentelemetry"):
        async with outbox.open():
            yield watch


class _Client(requests.Session):
    """The exporter's way out."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.reason = ""
        """What went wrong last."""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        """Raises requests.RequestException."""
        try:
            response = super().request(*arguments, **options)
            if response.is_redirect:  # the exporter would take it for success
                raise requests.HTTPError("the collector redirects, which is not followed")
        except requests.RequestException as error:
            self.reason = str(error)
            raise
        if response.status_code >= 400:
            self.reason = f"the collector answered {response.status_code}"
        return response


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """What this library tells the standard library's log, at each try, would come out between our lines."""
    logger, nowhere = logging.getLogger(name), logging.NullHandler()
    logger.addHandler(nowhere)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(nowhere)
