"""Each request upstream leaves one line and its counts, and no secret in either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import structlog
import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.exchange import is_down
from cacheproxy.upstream.registry import Registry
from tests.upstream.stage import Handler, scripted

DIGEST = Digest.of(b"")
SIGNED = "https://cdn.example/blob?X-Amz-Signature=s3cret"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged, with what is bound to the request."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


def always(reply: httpx.Response | Exception) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(reply, Exception):
            raise reply
        return reply

    return answer


async def blob(client: Registry) -> bytes:
    async with client.open_blob("a/b", DIGEST, endpoint=0) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"upstream": "hub", **labels}) or 0.0


async def test_request_is_one_line_with_the_id_of_who_asked(lines: list[Any]) -> None:
    with structlog.contextvars.bound_contextvars(request="r1"):
        async with scripted(always(httpx.Response(200, content=b""))) as client:
            await blob(client)
    [line] = lines
    assert line.pop("seconds") >= 0
    assert line == {
        "event": "upstream request",
        "log_level": "info",
        "upstream": "hub",
        "method": "GET",
        "host": "registry.example",
        "path": f"/v2/a/b/blobs/{DIGEST}",
        "status": 200,
        "request": "r1",
    }


async def test_signatures_and_tokens_are_not_logged(lines: list[Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "cdn.example":
            return httpx.Response(200, content=b"")
        if request.url.path == "/token":
            return httpx.Response(200, json={"token": "s3cret-token"})
        if "authorization" not in request.headers:
            realm = 'Bearer realm="https://registry.example/token?key=s3cret"'
            return httpx.Response(401, headers={"WWW-Authenticate": realm})
        return httpx.Response(307, headers={"Location": SIGNED})

    async with scripted(answer) as client:
        await blob(client)
    assert [(line["host"], line["status"]) for line in lines] == [
        ("registry.example", 401),
        ("registry.example", 200),
        ("registry.example", 307),
        ("cdn.example", 200),
    ]
    assert "s3cret" not in repr(lines)


async def test_failing_store_does_not_give_its_signature_away(lines: list[Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "cdn.example":
            raise httpx.ConnectError("refused")
        return httpx.Response(307, headers={"Location": SIGNED})

    async with scripted(answer) as client:
        with pytest.raises(UpstreamError) as caught:
            await blob(client)
    assert "s3cret" not in f"{caught.value} {lines}"
    assert caught.value.message == "cannot reach cdn.example: refused"


@pytest.mark.parametrize(
    ("reply", "level"), [(httpx.Response(503), "warning"), (httpx.Response(404), "info")]
)
async def test_failures_of_the_upstream_are_warnings(
    lines: list[Any], reply: httpx.Response, level: str
) -> None:
    async with scripted(always(reply)) as client:
        with pytest.raises(UpstreamError):
            await blob(client)
    assert [line["log_level"] for line in lines] == [level]


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (httpx.Response(200, content=b""), "2xx"),
        (httpx.Response(403), "4xx"),
        (httpx.Response(404), "404"),
        (httpx.Response(429), "429"),
        (httpx.Response(502), "5xx"),
        (httpx.ConnectError("refused"), "connect"),
        (httpx.ReadTimeout("slow"), "timeout"),
    ],
)
async def test_requests_are_counted_by_what_came_of_them(
    reply: httpx.Response | Exception, result: str
) -> None:
    name = "cacheproxy_upstream_requests_total"
    before = sample(name, kind="blob", result=result)
    async with scripted(always(reply)) as client:
        with suppress(UpstreamError):
            await blob(client)
    assert sample(name, kind="blob", result=result) - before == 1


async def test_rate_limits_are_gauges() -> None:
    headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
    async with scripted(always(httpx.Response(200, content=b"", headers=headers))) as client:
        await blob(client)
    assert sample("cacheproxy_upstream_ratelimit_limit") == 100
    assert sample("cacheproxy_upstream_ratelimit_remaining") == 76
    assert sample("cacheproxy_upstream_last_success_timestamp_seconds") > 0


async def test_head_has_the_time_of_a_stall_and_no_more(autojump_clock: MockClock) -> None:
    async def silence(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with scripted(silence, stall=7.0) as client:
        with pytest.raises(UpstreamError, match=r"no answer from registry\.example in 7\.0 s") as caught:
            await blob(client)
    assert caught.value.cause is Cause.TIMEOUT


@pytest.mark.parametrize(
    ("status", "down"), [(500, True), (503, True), (599, True), (501, False), (404, False)]
)
def test_501_is_about_the_request(status: int, down: bool) -> None:
    assert is_down(status) is down
