"""Requests in order over one connection: framing, pipelines, bodies, deadlines."""

from __future__ import annotations

import ipaddress

import pytest
import trio
import trio.testing

from cacheproxy.edge.message import Request, Response
from tests.edge.harness import Running, Scripted, ready, serving

PLAIN = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
ODD = b"GET /%d HTTP/1.1\r\nHost: a\r\nVia: x\r\nVia: y\r\n\r\n"
SMALL = b"PUT /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


async def echo(request: Request) -> Response:
    return Response(200, body=await request.read_body(100_000))


@pytest.mark.parametrize("form", [PLAIN, ODD])
async def test_a_connection_is_kept(form: bytes, server: Running) -> None:
    client = await server.connect()
    for number in range(3):
        await client.send(form % number)
        answer = await client.answer()
        assert answer.body == b"/%d" % number
        assert "connection" not in answer.headers


@pytest.mark.parametrize("forms", [[PLAIN] * 5, [ODD] * 5, [PLAIN, ODD, PLAIN, PLAIN, ODD]])
async def test_pipelined_requests_are_answered_in_order(forms: list[bytes], server: Running) -> None:
    client = await server.connect()
    await client.send(b"".join(form % number for number, form in enumerate(forms)))
    for number in range(len(forms)):
        assert (await client.answer()).body == b"/%d" % number


async def test_a_pipeline_that_is_cut_anywhere_is_the_same(server: Running) -> None:
    data = PLAIN % 0 + b"PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + ODD % 2
    for cut in range(1, len(data), 7):
        client = await server.connect()
        await client.send(data[:cut])
        await trio.testing.wait_all_tasks_blocked()
        await client.send(data[cut:])
        assert [(await client.answer()).body for _ in range(3)] == [b"/0", b"/1", b"/2"]
        await client.aclose()


async def test_a_ready_answer_is_found_on_the_slow_path_too(server: Running, app: Scripted) -> None:
    app.ready["/0"] = ready(b"manifest")
    client = await server.connect()
    await client.send(ODD % 0)
    assert (await client.answer()).body == b"manifest"


async def test_the_client_may_ask_for_the_end(server: Running) -> None:
    client = await server.connect()
    answer = await client.get("/", "Connection: close")
    assert answer.headers["connection"] == "close"
    assert await client.ended()


async def test_http_1_0_ends_with_its_answer(server: Running) -> None:
    client = await server.connect()
    await client.send(b"GET /old HTTP/1.0\r\n\r\n")
    answer = await client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"/old", "close")
    assert await client.ended()


@pytest.mark.parametrize(
    ("field", "body"),
    [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")],
)
async def test_a_body_is_read_on_demand(field: bytes, body: bytes, server: Running, app: Scripted) -> None:
    app.routes["/"] = echo
    client = await server.connect()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n" + body + PLAIN % 1)
    assert (await client.answer()).body == b"hello"
    assert (await client.answer()).body == b"/1"


async def test_a_client_that_expects_100_gets_it_when_its_body_is_wanted(
    server: Running, app: Scripted
) -> None:
    app.routes["/"] = echo
    client = await server.connect()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert (await client.answer()).status == 100
    await client.send(b"hello")
    assert (await client.answer()).body == b"hello"
    assert (await server.exchange()).sent == 5
    assert (await client.get("/after")).body == b"/after"


async def test_a_client_that_expects_100_in_vain_is_answered_and_closed(server: Running) -> None:
    client = await server.connect()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.ended()


async def test_a_body_over_the_handlers_limit(server: Running, app: Scripted) -> None:
    app.routes["/"] = echo
    client = await server.connect()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert await client.ended()


async def test_a_small_body_that_nobody_reads_is_drained(server: Running) -> None:
    client = await server.connect()
    await client.send(b"PUT /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n")
    assert (await client.answer()).body == b"/0"
    await client.send(bytes(65_536) + PLAIN % 1)
    assert (await client.answer()).body == b"/1"


async def test_a_large_body_that_nobody_reads_ends_the_connection_after_the_answer(server: Running) -> None:
    client = await server.connect()
    await client.send(b"PUT /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n" + bytes(65_537))
    answer = await client.answer()
    assert (answer.body, answer.headers["connection"]) == (b"/0", "close")
    assert await client.ended()


async def test_a_refused_request_is_logged_once(server: Running) -> None:
    client = await server.connect()
    await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    answer = await client.answer()
    await client.aclose()
    exchange = await server.exchange()
    assert (exchange.method, exchange.target, exchange.status) == ("GET", "/x", 400)
    assert exchange.sent == len(answer.body)
    assert exchange.id.encode() in answer.body
    assert len(server.exchanges) == 1


async def test_a_listed_proxys_client_is_the_peer(app: Scripted) -> None:
    async with serving(app, trusted_proxies=[ipaddress.ip_network("127.0.0.0/8")]) as server:
        client = await server.connect()
        await client.get(
            "/", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: cache.corp"
        )
        await client.get("/")
    first, second = app.requests
    assert (str(first.peer.address), first.peer.scheme, first.host) == ("192.0.2.1", "https", "cache.corp")
    assert (str(second.peer.address), second.peer.scheme) == ("127.0.0.1", "http")
    assert server.exchanges[0].peer == first.peer


async def test_a_strangers_forwarding_is_noted(server: Running, app: Scripted) -> None:
    client = await server.connect()
    await client.get("/", "X-Forwarded-For: 10.0.0.1")
    assert app.requests[0].peer.forwarded_by_stranger


@pytest.mark.parametrize("last", [PLAIN % 0, ODD % 0, SMALL, PLAIN % 0 + ODD % 1])
async def test_an_idle_connection_is_closed_in_order(
    last: bytes, server: Running, clock: trio.testing.MockClock
) -> None:
    client = await server.connect()
    await client.send(last)
    for _ in range(last.count(b"HTTP/1.1")):
        await client.answer()
    answered = trio.current_time()
    assert await client.ended()
    assert 60 <= trio.current_time() - answered <= 62


async def test_a_head_that_drips_has_ten_seconds_in_all(
    server: Running, clock: trio.testing.MockClock
) -> None:
    client = await server.connect()
    began = trio.current_time()

    async def drip() -> None:
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n":
            await client.send(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        answer = await client.answer()
        assert answer.status == 408
        assert 10 <= trio.current_time() - began <= 12
        nursery.cancel_scope.cancel()
    assert (await server.exchange()).status == 408


async def test_a_dripping_head_after_an_idle_time_has_ten_seconds_too(
    server: Running, clock: trio.testing.MockClock
) -> None:
    client = await server.connect()
    await client.get("/")
    await trio.sleep(50)
    await client.send(b"GET / HT")
    began = trio.current_time()
    assert (await client.answer()).status == 408
    assert 10 <= trio.current_time() - began <= 12


async def test_a_connection_that_says_nothing_is_closed_without_a_word(
    server: Running, clock: trio.testing.MockClock
) -> None:
    client = await server.connect()
    assert await client.ended()
    assert 10 <= trio.current_time() <= 12
    assert server.exchanges == []


async def test_a_body_that_drips_is_cut(
    server: Running, app: Scripted, clock: trio.testing.MockClock
) -> None:
    app.routes["/"] = echo
    client = await server.connect()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")

    async def drip() -> None:
        while True:
            await client.send(b"x")
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        exchange = await server.exchange()
        nursery.cancel_scope.cancel()
    assert (exchange.status, exchange.aborted) == (499, "slow")
    assert 30 <= exchange.seconds <= 32


async def test_a_slow_handler_is_waited_for(
    server: Running, app: Scripted, clock: trio.testing.MockClock
) -> None:
    async def handler(_: Request) -> Response:
        await trio.sleep(200)
        return Response(200, body=b"late")

    app.routes["/"] = handler
    client = await server.connect()
    assert (await client.get("/")).body == b"late"


async def test_a_client_that_does_not_end_its_side_is_not_waited_for(
    server: Running, clock: trio.testing.MockClock
) -> None:
    client = await server.connect()
    await client.get("/", "Connection: close")
    assert await client.ended()
    await client.send(b"still here")
    await trio.sleep(3)
    await client.send(b"answered with a reset")
    await trio.sleep(1)
    with pytest.raises(trio.BrokenResourceError):
        await client.send(b"still here")
