"""A request owns its connection: what becomes of it when all goes well, and when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import respx
import trio
import trio.testing

from cacheproxy.upstream.causes import BrokenOff
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.tls import client_context
from cacheproxy.upstream.transport import OwnedTransport
from tests.upstream.servers import Answer, Asked, Server, answering, chunked, client, dialer, reply

BIG = bytes(4 * 1024 * 1024)


@pytest.fixture
async def session() -> AsyncIterator[httpx.AsyncClient]:
    async with client(OwnedTransport(dialer())) as session:
        yield session


async def started(nursery: trio.Nursery, answer: Answer) -> Server:
    server = Server(answer)
    await nursery.start(server.serve)
    return server


async def test_one_connection_serves_requests_that_follow_one_another(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(reply(b"one"), chunked(b"two"), reply(b"three")))
    bodies = [(await session.get(server.url)).content for _ in range(3)]
    assert bodies == [b"one", b"two", b"three"]
    assert server.accepted == 1


async def test_requests_at_once_have_a_connection_each(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    async def answer(_asked: Asked) -> bytes:
        await trio.sleep(0.05)
        return reply()

    server = await started(nursery, answer)
    async with trio.open_nursery() as asking:
        for _ in range(5):
            asking.start_soon(session.get, server.url)
    assert server.accepted == 5


async def test_the_request_arrives_as_it_was_made(nursery: trio.Nursery, session: httpx.AsyncClient) -> None:
    server = await started(nursery, answering(reply()))
    await session.post(
        f"{server.url}/token?a=b%20c", data={"scope": "x"}, headers={"User-Agent": "cacheproxy"}
    )
    [asked] = server.asked
    assert (asked.method, asked.target) == ("POST", "/token?a=b%20c")
    assert asked.headers["content-length"] == "7"
    assert asked.headers["user-agent"] == "cacheproxy"
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"


async def test_the_response_is_as_it_was_sent(nursery: trio.Nursery, session: httpx.AsyncClient) -> None:
    headers = ("Docker-Content-Digest: sha256:ab", "Link: <a>", "Link: <b>")
    server = await started(nursery, answering(reply(b"abc", status="418 Short And Stout", headers=headers)))
    response = await session.get(server.url)
    assert (response.status_code, response.reason_phrase, response.http_version) == (
        418,
        "Short And Stout",
        "HTTP/1.1",
    )
    assert response.headers.get_list("link") == ["<a>", "<b>"]


async def test_a_body_that_is_left_half_read_closes_its_connection(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(reply(BIG)))
    async with session.stream("GET", server.url):
        pass
    await server.left_with(0)
    assert len((await session.get(server.url)).content) == len(BIG)
    assert server.accepted == 2


async def test_a_body_that_is_dropped_in_the_middle_leaves_nothing_to_finalise(nursery: trio.Nursery) -> None:
    """An abandoned async generator would make trio warn, and warnings are errors here."""
    server = await started(nursery, answering(reply(BIG)))
    response = await OwnedTransport(dialer()).handle_async_request(httpx.Request("GET", server.url))
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for part in response.stream:
        assert part
        break
    await response.aclose()
    await server.left_with(0)


async def test_the_page_that_comes_with_a_redirect_need_not_be_read(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(reply(b"<a>", status="307 Temporary Redirect")))
    for _ in range(2):
        async with session.stream("GET", server.url):
            pass
    assert server.accepted == 1


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_bytes_beyond_a_response_never_answer_the_next_request(
    nursery: trio.Nursery, session: httpx.AsyncClient, method: str
) -> None:
    """Else, where HEAD gets a body, a manifest that looks like a response would answer for another one."""
    body = b"" if method == "GET" else reply(b"evil")
    beyond = reply(body) + (reply(b"evil") if method == "GET" else b"")
    server = await started(nursery, answering(beyond, reply(b"good")))
    await session.request(method, server.url)
    assert (await session.get(server.url)).content == b"good"
    assert server.accepted == 2


async def test_parts_of_a_body_come_in_gulps_and_not_in_pieces(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(reply(BIG)))
    async with session.stream("GET", server.url) as response:
        sizes = [len(part) async for part in response.aiter_raw()]
    assert sum(sizes) == len(BIG)
    assert max(sizes) > 64 * 1024


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_connection_given_up_by_the_peer_costs_a_second_try(
    nursery: trio.Nursery, session: httpx.AsyncClient, method: str
) -> None:
    server = await started(nursery, answering(reply(), None, reply(headers=("X: fresh",))))
    await session.get(server.url)
    response = await session.request(method, server.url)
    assert response.headers["x"] == "fresh"
    assert (server.accepted, len(server.asked)) == (2, 3)


async def test_what_may_have_been_done_is_not_asked_again(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(reply(), None))
    await session.get(server.url)
    with pytest.raises(BrokenOff):
        await session.post(server.url, content=b"x")
    assert len(server.asked) == 2


async def test_a_fresh_connection_that_fails_is_not_tried_again(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(None))
    with pytest.raises(BrokenOff):
        await session.get(server.url)
    assert server.accepted == 1


async def test_a_connection_that_fails_in_the_answer_is_not_tried_again(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    async def answer(asked: Asked) -> bytes | None:
        if len(server.asked) == 1:
            return reply()
        await asked.stream.send_all(b"HTTP/1.1 200")
        return None

    server = await started(nursery, answer)
    await session.get(server.url)
    with pytest.raises(BrokenOff):
        await session.get(server.url)
    assert server.accepted == 1


async def test_a_connection_that_the_peer_closed_is_not_used(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    async def answer(asked: Asked) -> bytes | None:
        await asked.stream.send_all(reply())
        return None

    server = await started(nursery, answer)
    for _ in range(3):
        await session.get(server.url)
        await server.left_with(0)
    assert (server.accepted, len(server.asked)) == (3, 3)


async def test_a_body_that_breaks_off_raises_and_closes(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    async def answer(asked: Asked) -> bytes | None:
        await asked.stream.send_all(reply(b"abc")[:-1])
        return None

    server = await started(nursery, answer)
    async with session.stream("GET", server.url) as response:
        with pytest.raises(BrokenOff):
            await response.aread()
        assert isinstance(response.stream, httpx.AsyncByteStream)
        with pytest.raises(httpx.StreamClosed):  # and never an empty rest that looks like an end
            await anext(aiter(response.stream))


async def test_closing_does_not_wait_and_leaves_running_requests_alone(nursery: trio.Nursery) -> None:
    server = await started(nursery, answering(reply(BIG)))
    transport = OwnedTransport(dialer())
    session = client(transport)
    await session.get(server.url)
    async with session.stream("GET", server.url) as running:
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        assert not scope.cancelled_caught
        assert len(await running.aread()) == len(BIG)
    await server.left_with(0)


async def test_connections_that_nobody_uses_are_closed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = await started(nursery, answering(reply()))
    transport = OwnedTransport(dialer())
    nursery.start_soon(transport.tidy)
    async with client(transport) as session:
        await session.get(server.url)
        await trio.sleep(10)
        assert server.open == 1
        await trio.sleep(20)
        assert server.open == 0


async def test_another_scheme_is_refused(session: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await session.get("ftp://registry.example/")


@pytest.mark.parametrize("url", ["http://127.0.0.1:65536/", "http://127.0.0.1:0/", "https:///v2/"])
async def test_a_url_that_leads_nowhere_is_a_failure_of_the_request(url: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        await OwnedTransport(dialer()).handle_async_request(httpx.Request("GET", url))


async def test_a_header_that_would_break_the_request_is_refused(
    nursery: trio.Nursery, session: httpx.AsyncClient
) -> None:
    server = await started(nursery, answering(reply()))
    with pytest.raises(httpx.LocalProtocolError):
        await session.get(server.url, headers={"X": "a\r\nHost: evil.example"})
    await server.left_with(0)


async def test_nothing_private_is_reached_unless_listed(nursery: trio.Nursery) -> None:
    server = await started(nursery, answering(reply()))
    async with client(OwnedTransport(Dialer(AddressGate(), client_context()))) as session:
        with pytest.raises(httpx.ConnectError, match="refused"):
            await session.get(server.url)
    assert server.accepted == 0


async def test_a_client_over_it_can_be_mocked(session: httpx.AsyncClient) -> None:
    with respx.mock(using="httpx") as respx_mock:
        respx_mock.get("https://registry.example/v2/").respond(204)
        assert (await session.get("https://registry.example/v2/")).status_code == 204
