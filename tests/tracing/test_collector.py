"""The way to the collector."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import Any

import pytest
from structlog.testing import capture_logs

from cacheproxy.edge.message import Exchange, Peer
from cacheproxy.tracing.collector import collecting
from cacheproxy.tracing.door import Sampling
from tests.collector import Collector, collector
from tests.tracing.test_door import Application


async def send_one(at: Collector) -> list[Any]:
    """One span to the collector. Returns what was logged of it."""
    exchange = Exchange(Peer(ip_address("10.0.0.1"), "http"), "GET", "/v2/a/manifests/b", 200, 5, 0, 0.1, 0.1)
    with capture_logs() as lines:
        async with collecting(at.url, Sampling(1.0)) as watch:
            traced, log = watch(Application(), lambda _: None)
            traced.immediate(exchange.method, exchange.target, {}, exchange.peer)
            log(exchange)
    return lines


async def test_spans_come_with_who_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with collector() as at:
        assert await send_one(at) == []
        assert [span.name for span in at.spans] == ["GET /v2/{name}/manifests/{reference}"]
        assert at.resource["service.name"] == "cacheproxy"
        assert at.resource["deployment.environment.name"] == "test"


async def test_the_service_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge-cache")
    async with collector() as at:
        await send_one(at)
        assert at.resource["service.name"] == "edge-cache"


async def test_no_proxy_of_the_surroundings_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with collector() as at:
        assert await send_one(at) == []
        assert len(at.spans) == 1


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (400, "", "the collector answered 400"),
        (307, "Location: http://127.0.0.1:9/\r\n", "the collector redirects, which is not followed"),
    ],
)
async def test_what_a_collector_does_not_take_is_said(status: int, headers: str, reason: str) -> None:
    async with collector() as at:
        at.status, at.headers = status, headers
        lines = await send_one(at)
        assert [(line["event"], line["reason"]) for line in lines] == [("traces are not sent", reason)]
        assert at.requests == 1


async def test_the_exporter_does_not_write_between_our_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with collector() as at:
        at.status = 400
        await send_one(at)
    assert caplog.records == []
    assert logging.getLogger("opentelemetry").propagate


async def test_nothing_is_connected_to_before_there_is_a_span() -> None:
    async with collector() as at, collecting(at.url, Sampling(1.0)):
        pass
    assert at.requests == 0
