"""A collector on loopback that takes spans by OTLP over HTTP, and shows them; it fails as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WITHIN = 10.0
"""Seconds for spans that are waited for."""

KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client", Span.SPAN_KIND_INTERNAL: ""}


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    """"" for the first one of a trace."""
    links: frozenset[str]
    """Ids of other spans."""
    attributes: dict[str, str | int | float | bool]
    failed: bool
    seconds: float


@dataclass
class Collector:
    url: str
    spans: list[Seen] = field(default_factory=list)
    resource: dict[str, str | int | float | bool] = field(default_factory=dict)
    requests: int = 0
    status: int = 200
    hangs: bool = False
    """Requests are read, and never answered."""
    headers: str = ""
    """More lines of each answer's head, with their CRLF."""

    async def wait(self, wanted: Callable[[Seen], bool], count: int = 1) -> list[Seen]:
        """The spans that are wanted, once so many have come."""
        with trio.move_on_after(WITHIN):
            while len(list(filter(wanted, self.spans))) < count:
                await trio.sleep(0.01)
        found = list(filter(wanted, self.spans))
        assert len(found) == count, [(span.name, span.attributes) for span in self.spans]
        return found

    async def of_request(self, request: str) -> Seen:
        """The server's span for a request, by its id."""
        return (await self.wait(lambda span: span.attributes.get("cacheproxy.request") == request))[0]

    async def below(self, parent: Seen, count: int) -> list[Seen]:
        """The parts of a span, in the order of their ends."""
        return await self.wait(lambda span: span.parent == parent.id, count)

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = bytearray()
            while b"\r\n\r\n" not in data:
                if not (more := await stream.receive_some()):
                    return
                data += more
            head, _, body = bytes(data).partition(b"\r\n\r\n")
            first, *lines = head.decode("ascii").split("\r\n")
            assert first == "POST /v1/traces HTTP/1.1"
            fields = dict(line.lower().split(": ", 1) for line in lines)
            assert fields["content-type"] == "application/x-protobuf"
            while len(body) < int(fields["content-length"]):
                body += await stream.receive_some()
            self.requests += 1
            if self.hangs:
                await trio.sleep_forever()
            if self.status == 200:
                self.take(body)
            # Not kept, so that no connection is open when a test looks for what should not be.
            answer = (
                f"HTTP/1.1 {self.status} -\r\n{self.headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await stream.send_all(answer.encode())

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += map(_seen, scope.spans)


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    made = Collector(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, made.answer, [listener]))
        yield made
        nursery.cancel_scope.cancel()


def _seen(span: Span) -> Seen:
    return Seen(
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        frozenset(link.span_id.hex() for link in span.links),
        _values(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _values(pairs: list[KeyValue]) -> dict[str, str | int | float | bool]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in pairs}
