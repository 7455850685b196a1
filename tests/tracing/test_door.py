"""Which requests are traced, and what their spans say."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cacheproxy.core import trace
from cacheproxy.edge.message import Exchange, Peer, Ready, Request, Response
from cacheproxy.edge.turn import no_body
from cacheproxy.tracing.door import Sampling, Traced
from cacheproxy.tracing.spans import tracer

CLIENT = Peer(ip_address("10.0.0.1"), "https")
THEIRS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
THEIR_TRACE = "0af7651916cd43dd8448eb211c80319c"
TRUSTED = Sampling(0.0, [ip_network("10.0.0.0/8")])


class Application:
    """Has every manifest ready, and answers all else; it notes what is under way meanwhile."""

    def __init__(self) -> None:
        self.under_way: list[trace.Span | None] = []
        self.bound: list[dict[str, Any]] = []

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return Ready(b"", b"", "hit", "hub") if "/manifests/" in target else None

    async def handle(self, request: Request) -> Response:
        self.under_way.append(trace.current.get())
        self.bound.append(structlog.contextvars.get_contextvars())
        return Response(200)

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return Response(status)


class Stage:
    def __init__(self, sampling: Sampling) -> None:
        self.exporter = InMemorySpanExporter()
        self.application = Application()
        self.logged: list[Exchange] = []
        spans = tracer(SimpleSpanProcessor(self.exporter))
        self.door = Traced(self.application, self.logged.append, spans, sampling, lambda: 1000.0)

    async def ask(self, target: str, peer: Peer = CLIENT, headers: dict[str, str] | None = None) -> Exchange:
        """As the edge does it, on a task that has more requests to serve."""
        exchange = Exchange(peer, "GET", target, 200, 5, 1000.0, 0.25, 0.1, "hit", "hub", "r1")
        if self.door.immediate("GET", target, headers or {}, peer) is None:
            await self.door.handle(Request("GET", target, headers or {}, peer, exchange.id, no_body))
        return exchange

    async def answered(self, target: str, peer: Peer = CLIENT, headers: dict[str, str] | None = None) -> str:
        """The trace's id in the log of requests."""
        exchange = await self.ask(target, peer, headers)
        self.door.log(exchange)
        return exchange.trace

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


BOTH = pytest.mark.parametrize("target", ["/v2/a/manifests/b", "/v2/a/tags/list"], ids=["ready", "not ready"])


@BOTH
@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 20), (0.5, None)])
async def test_a_share_of_the_requests_is_traced(share: float, count: int | None, target: str) -> None:
    stage = Stage(Sampling(share))
    for _ in range(20 if count is not None else 400):
        await stage.answered(target)
    found = len(stage.spans)
    assert 100 < found < 300 if count is None else found == count


@BOTH
async def test_a_span_has_the_times_and_the_outcome_of_its_request(target: str) -> None:
    stage = Stage(Sampling(1.0))
    logged = await stage.answered(target)
    [span] = stage.spans
    assert span.kind is SpanKind.SERVER
    assert (span.start_time, span.end_time) == (1000_000_000_000, 1000_250_000_000)
    assert span.attributes is not None
    assert span.attributes["cacheproxy.outcome"] == "hit"
    assert span.attributes["cacheproxy.request"] == "r1"
    assert span.attributes["client.address"] == "10.0.0.1"
    assert span.attributes["oci.repository"] == "a"
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert span.context is not None
    assert logged == f"{span.context.trace_id:032x}"


@BOTH
@pytest.mark.parametrize(
    ("peer", "headers", "trace_id"),
    [
        (CLIENT, THEIRS, THEIR_TRACE),
        (CLIENT, {"traceparent": THEIRS["traceparent"][:-1] + "0"}, ""),
        (CLIENT, {"traceparent": "00-nothing-01"}, ""),
        (Peer(ip_address("192.0.2.1"), "http"), THEIRS, ""),
        (Peer(ip_address("10.0.0.1"), "http", forwarded_by_stranger=True), THEIRS, ""),
        (Peer(None, "http"), THEIRS, ""),
    ],
    ids=["trusted", "not sampled", "no traceparent", "elsewhere", "through a stranger", "unix"],
)
async def test_who_is_trusted_says_what_is_traced(
    peer: Peer, headers: dict[str, str], trace_id: str, target: str
) -> None:
    stage = Stage(TRUSTED)
    assert await stage.answered(target, peer, headers) == trace_id
    assert [span.parent is not None for span in stage.spans] == [True] * bool(trace_id)


@BOTH
async def test_the_next_request_of_a_connection_is_not_traced_for_the_one_before(target: str) -> None:
    stage = Stage(TRUSTED)
    await stage.answered(target, headers=THEIRS)
    assert await stage.answered(target) == ""
    assert await stage.answered("/v2/") == ""
    assert len(stage.spans) == 1
    assert stage.application.under_way[-1] is None
    assert "trace" not in stage.application.bound[-1]


async def test_what_is_logged_meanwhile_has_the_id_of_the_trace() -> None:
    stage = Stage(Sampling(1.0))
    traced = await stage.answered("/v2/")
    assert [bound["trace"] for bound in stage.application.bound] == [traced]


@pytest.mark.parametrize(
    ("status", "aborted", "kind"), [(503, "", "503"), (404, "", None), (200, "source", "source")]
)
async def test_what_is_our_fault_is_an_error(status: int, aborted: str, kind: str | None) -> None:
    stage = Stage(Sampling(1.0))
    exchange = await stage.ask("/v2/a/manifests/b")
    exchange.status, exchange.aborted = status, aborted
    stage.door.log(exchange)
    [span] = stage.spans
    assert span.attributes is not None
    assert span.attributes.get("error.type") == kind
    assert (span.status.status_code is StatusCode.ERROR) == (kind is not None)


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("HEAD", "/v2/a/b/blobs/sha256:" + "0" * 64, "HEAD /v2/{name}/blobs/{digest}"),
        ("GET", "/v2/", "GET /v2/"),
        ("GET", "/secret/../path", "GET"),
        ("BREW", "/v2/a/manifests/b", "_OTHER /v2/{name}/manifests/{reference}"),
    ],
)
async def test_names_are_few(method: str, target: str, name: str) -> None:
    stage = Stage(Sampling(1.0))
    exchange = await stage.ask(target)
    exchange.method = method
    stage.door.log(exchange)
    assert [span.name for span in stage.spans] == [name]


async def test_a_secret_in_a_query_is_not_told() -> None:
    stage = Stage(Sampling(1.0))
    await stage.answered("/v2/a/manifests/b?ns=docker.io&token=s3cret")
    [span] = stage.spans
    assert span.attributes is not None
    assert span.attributes["url.query"] == "ns=docker.io&token=..."
    assert "s3cret" not in span.to_json()
