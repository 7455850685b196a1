"""TLS between a client and the edge: the same answers, and nothing that a broken client can hold on to."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
import trio.testing
import trustme
from prometheus_client import REGISTRY

from cacheproxy.core.blob import Span
from cacheproxy.edge.certificate import server_context
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.message import Request, Response
from cacheproxy.edge.tls import STEP, TURNED_AWAY, _after
from tests.edge.harness import FileView, Growing, Running, Scripted, View, ready, serving

AUTHORITY = trustme.CA()
DATA = os.urandom(251) * 10_000  # about 2.5 MB: several steps


def server_side() -> ssl.SSLContext:
    context = server_context()  # the daemon's: what Python sets by itself differs from build to build
    AUTHORITY.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


SERVER = server_side()
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)


@pytest.fixture
async def server(app: Scripted) -> AsyncIterator[Running]:
    async with serving(app, tls=lambda: SERVER) as running:
        yield running


def failed_handshakes() -> float:
    return REGISTRY.get_sample_value("cacheproxy_tls_handshakes_failed_total") or 0.0


async def test_requests_in_a_row(server: Running, app: Scripted) -> None:
    app.ready["/ready"] = ready()
    client = await server.secure(CLIENT)
    assert (await client.get("/one")).body == b"/one"
    assert (await client.get("/ready")).body == b"manifest"
    assert (await client.get("/two", "Via: x", "Via: y")).body == b"/two"
    assert [exchange.peer.scheme for exchange in server.exchanges] == ["https"] * 3
    assert server.exchanges[1].sent == len(b"manifest")


async def test_head_has_no_body(server: Running, app: Scripted) -> None:
    app.ready["/ready"] = ready()
    client = await server.secure(CLIENT)
    answer = await client.get("/ready", method="HEAD")
    assert (answer.headers["content-length"], client.buffer) == ("8", b"")
    assert (await client.get("/next")).body == b"/next"


async def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    client = await server.secure(CLIENT)
    await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(2_000)))
    for number in range(2_000):
        assert (await client.answer()).body == b"/%d" % number


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, STEP + 1, len(DATA)])
async def test_a_file_arrives_byte_for_byte(size: int, server: Running, app: Scripted, file: int) -> None:
    app.blob("/blob", FileView(DATA[:size], file))
    client = await server.secure(CLIENT)
    assert (await client.get("/blob")).body == DATA[:size]
    assert (await client.get("/next")).body == b"/next"
    assert server.exchanges[0].sent == size


async def test_memory_arrives_byte_for_byte(server: Running, app: Scripted) -> None:
    app.blob("/blob", View(DATA))
    assert (await (await server.secure(CLIENT)).get("/blob")).body == DATA


async def test_parts_arrive_between_what_frames_them(server: Running, app: Scripted, file: int) -> None:
    app.blob("/blob", FileView(DATA, file), b"--x\r\n", Span(10, 700_000, True), b"\r\n--x--")
    answer = await (await server.secure(CLIENT)).get("/blob")
    assert answer.body == b"--x\r\n" + DATA[10:700_000] + b"\r\n--x--"


async def test_many_clients_read_one_file_at_once(server: Running, app: Scripted, file: int) -> None:
    view = FileView(DATA, file)
    app.blob("/blob", view)

    async def read() -> None:
        answer = await (await server.secure(CLIENT)).get("/blob")
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(DATA).digest()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(read)


async def test_a_body_in_many_records_is_read_whole(server: Running, app: Scripted) -> None:
    async def length(request: Request) -> Response:
        return Response(200, body=hashlib.sha256(await request.read_body(len(DATA))).hexdigest().encode())

    app.routes["/put"] = length
    client = await server.secure(CLIENT)
    await client.send(b"PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(DATA) + DATA)
    assert (await client.answer()).body.decode() == hashlib.sha256(DATA).hexdigest()
    assert (await client.get("/next")).body == b"/next"


async def test_a_body_that_ends_early_is_refused(server: Running, app: Scripted) -> None:
    asked = trio.Event()

    async def read(request: Request) -> Response:
        asked.set()
        return Response(200, body=await request.read_body(100))

    app.routes["/put"] = read
    client = await server.secure(CLIENT)
    await client.send(b"PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this")
    # A client that half-closes while nobody reads its body counts as gone.
    await asked.wait()
    await trio.testing.wait_all_tasks_blocked()
    await client.stream.send_eof()
    assert (await client.answer()).status == 400


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_what_is_agreed_on(version: ssl.TLSVersion, server: Running) -> None:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = await server.secure(context)
    assert client.secure is not None
    assert client.secure.selected_alpn_protocol() == "http/1.1"
    assert (await client.get("/")).status == 200


@pytest.mark.parametrize("header", ["Connection: close", "Accept: */*"])
async def test_the_servers_end_is_announced_and_the_clients_is_not_waited_for(
    header: str, server: Running, clock: trio.testing.MockClock
) -> None:
    strict = ssl.create_default_context()
    AUTHORITY.configure_trust(strict)
    strict.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # then an end without close_notify is an error
    client = await server.secure(strict, https_compatible=False)
    await client.get("/", header)
    assert client.secure is not None
    assert await client.secure.receive_some() == b""


async def test_a_source_that_fails_cuts_the_connection(server: Running, app: Scripted) -> None:
    view = Growing(DATA, here=1000)
    app.blob("/blob", view)
    client = await server.secure(CLIENT)
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await view.waited.wait()
    view.fail(RuntimeError("upstream"))
    with pytest.raises(trio.BrokenResourceError):
        await client.read_to_the_end()
    assert (await server.exchange()).aborted == "source"


async def test_plain_http_is_told_so(server: Running) -> None:
    client = await server.connect()
    answer = await client.get("/v2/")
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert b"TLS" in answer.body
    assert await client.ended()


@pytest.mark.parametrize("garbage", [b"\0" * 64, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, os.urandom(9) * 9])
async def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes, server: Running) -> None:
    before = failed_handshakes()
    client = await server.connect()
    garbage = b"\xff" + garbage if garbage[:1].isupper() else garbage
    with suppress(trio.BrokenResourceError):
        await client.send(garbage)
        await client.read_to_the_end()
    assert failed_handshakes() == before + 1
    assert (await (await server.secure(CLIENT)).get("/")).status == 200


async def test_a_client_that_goes_before_its_handshake_is_no_failure(server: Running) -> None:
    before = failed_handshakes()
    client = await server.connect()
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert failed_handshakes() == before


async def test_a_client_that_trusts_somebody_else_leaves_the_server_well(server: Running) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await server.secure(ssl.create_default_context())
    assert (await (await server.secure(CLIENT)).get("/")).status == 200


async def test_bytes_that_were_tampered_with_end_the_connection(server: Running, app: Scripted) -> None:
    client = await server.secure(CLIENT)
    await client.get("/")
    await client.stream.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with suppress(trio.BrokenResourceError):
        await client.read_to_the_end()
    assert len(app.requests) == 1


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_stalls_is_cut(
    said: bytes, server: Running, clock: trio.testing.MockClock
) -> None:
    before = REGISTRY.get_sample_value("cacheproxy_connections_cut_total", {"why": "handshake"}) or 0.0
    client = await server.connect()
    await client.send(said)
    began = trio.current_time()
    with suppress(trio.BrokenResourceError):
        await client.read_to_the_end()
    assert 10 <= trio.current_time() - began <= 12
    await trio.testing.wait_all_tasks_blocked()
    after = REGISTRY.get_sample_value("cacheproxy_connections_cut_total", {"why": "handshake"})
    assert after == before + 1


async def test_a_head_that_stalls_is_answered(server: Running, clock: trio.testing.MockClock) -> None:
    client = await server.secure(CLIENT)
    await client.send(b"GET / HT")
    assert (await client.answer()).status == 408


async def test_a_reader_that_stalls_is_cut(
    server: Running, app: Scripted, file: int, clock: trio.testing.MockClock
) -> None:
    app.blob("/blob", FileView(DATA * 6, file))  # more than the sockets' buffers hold
    client = await server.secure(CLIENT)
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await server.exchange()).aborted == "slow"


async def test_over_the_limit_there_is_an_alert(app: Scripted) -> None:
    async with serving(app, Limits(connections=1), tls=lambda: SERVER) as server:
        first = await server.secure(CLIENT)
        second = await server.connect()
        assert await second.stream.receive_some() == TURNED_AWAY
        with suppress(trio.BrokenResourceError):
            await second.read_to_the_end()
        assert (await first.get("/")).status == 200


async def test_a_drain_ends_idle_connections_and_half_handshakes(
    server: Running, clock: trio.testing.MockClock
) -> None:
    idle, fresh, half = await server.secure(CLIENT), await server.secure(CLIENT), await server.connect()
    await idle.get("/")
    await half.send(b"\x16\x03\x01\x02\x00\x01")
    await trio.testing.wait_all_tasks_blocked(0.01)
    server.drain.set()
    for client in (idle, fresh, half):
        assert await client.ended()
    await server.ended.wait()
    assert trio.current_time() < 5


async def test_a_drain_lets_running_answers_finish(server: Running, app: Scripted) -> None:
    view = Growing(b"0123456789", here=5)
    app.blob("/blob", view)
    client = await server.secure(CLIENT)
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await view.waited.wait()
    server.drain.set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    view.arrive(10)
    assert (await client.answer()).body == b"0123456789"
    assert await client.ended()


async def test_a_client_that_is_not_ours_is_content(server: Running, app: Scripted, file: int) -> None:
    app.blob("/blob", FileView(DATA, file))
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)

    def fetch() -> bytes:
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=10)
        try:
            connection.request("GET", "/blob")
            return connection.getresponse().read()
        finally:
            connection.close()

    assert hashlib.sha256(await trio.to_thread.run_sync(fetch)).digest() == hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("gone", range(7))
def test_what_is_left_after_some_bytes_have_gone(gone: int) -> None:
    assert b"".join(_after([b"ab", memoryview(b"c"), b"def"], gone)) == b"abcdef"[gone:]
