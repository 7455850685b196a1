"""What an application's answer becomes on the wire and in the log."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cacheproxy.core.blob import Span
from cacheproxy.edge.message import BlobBody, Ready, Request, Response
from tests.edge.harness import FileView, Growing, Running, Scripted, View, ready

DATA = bytes(range(251)) * 4_000


async def test_an_answer_that_is_ready(server: Running, app: Scripted) -> None:
    app.ready["/m"] = ready(b"manifest")
    client = await server.connect()
    answer = await client.get("/m", "User-Agent: docker/27")
    assert (answer.status, answer.body) == (200, b"manifest")
    assert answer.headers.keys() == {"content-type", "content-length", "date"}
    assert app.requests == []
    exchange = await server.exchange()
    assert (exchange.method, exchange.target, exchange.status, exchange.sent) == ("GET", "/m", 200, 8)
    assert (exchange.outcome, exchange.upstream, exchange.aborted) == ("hit", "hub", "")
    assert exchange.user_agent == "docker/27"
    assert len(exchange.id) == 16
    assert exchange.first_byte is not None
    assert 0 <= exchange.first_byte <= exchange.seconds


async def test_head_of_what_is_ready_has_no_body(server: Running, app: Scripted) -> None:
    app.ready["/m"] = ready(b"manifest")
    client = await server.connect()
    answer = await client.get("/m", method="HEAD")
    assert answer.headers["content-length"] == "8"
    assert (await client.get("/m")).body == b"manifest"
    assert (await server.exchange()).sent == 0


async def test_an_answer_that_must_be_made(server: Running, app: Scripted) -> None:
    async def handler(request: Request) -> Response:
        assert (request.path, request.query, request.host) == ("/v2/", "a=b", "cache.example:5000")
        assert await request.read_body(0) == b""
        return Response(201, [("X-A", "b")], b"made", outcome="miss", upstream="quay")

    app.routes["/v2/"] = handler
    client = await server.connect()
    answer = await client.get("/v2/?a=b")
    assert (answer.status, answer.headers["x-a"], answer.body) == (201, "b", b"made")
    exchange = await server.exchange()
    assert (exchange.outcome, exchange.upstream, exchange.sent) == ("miss", "quay", 4)
    assert exchange.id == app.requests[0].id


async def test_head_has_the_length_and_no_body(server: Running, app: Scripted) -> None:
    async def body(_: Request) -> Response:
        return Response(200, body=b"12345")

    async def length(_: Request) -> Response:
        return Response(200, length=1_000_000)

    app.routes.update({"/body": body, "/length": length})
    view = View(DATA)
    app.blob("/blob", view)
    client = await server.connect()
    for path, expected in (("/body", 5), ("/length", 1_000_000), ("/blob", len(DATA))):
        answer = await client.get(path, method="HEAD")
        assert answer.headers["content-length"] == str(expected)
    assert (await client.get("/after")).body == b"/after"
    assert view.closed == 1


async def test_304_has_neither_length_nor_body(server: Running, app: Scripted) -> None:
    async def handler(_: Request) -> Response:
        return Response(304, [("ETag", '"x"')], b"ignored")

    app.routes["/"] = handler
    client = await server.connect()
    answer = await client.get("/")
    assert answer.status == 304
    assert "content-length" not in answer.headers
    assert (await client.get("/after")).body == b"/after"


async def test_a_blob_from_a_file(server: Running, app: Scripted, file: int) -> None:
    view = FileView(DATA, file)
    app.blob("/blob", view)
    client = await server.connect()
    answer = await client.get("/blob")
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.body == DATA
    exchange = await server.exchange()
    assert (exchange.sent, exchange.outcome, exchange.aborted) == (len(DATA), "hit", "")
    assert view.closed == 1
    assert (await client.get("/after")).body == b"/after"


async def test_parts_of_a_blob(server: Running, app: Scripted, file: int) -> None:
    app.blob("/blob", FileView(DATA, file), b"--x\r\n", Span(5, 9, True), b"\r\n--x--")
    client = await server.connect()
    assert (await client.get("/blob")).body == b"--x\r\n" + DATA[5:9] + b"\r\n--x--"


async def test_an_answer_may_end_the_connection(server: Running, app: Scripted) -> None:
    async def handler(_: Request) -> Response:
        return Response(200, body=b"last", close=True)

    app.routes["/"] = handler
    client = await server.connect()
    answer = await client.get("/")
    assert (answer.headers["connection"], answer.body) == ("close", b"last")
    assert await client.ended()


async def test_a_source_that_fails_before_the_first_byte_is_an_error_and_not_a_cut(
    server: Running, app: Scripted
) -> None:
    view = Growing(DATA)
    view.fail(RuntimeError("upstream"))
    app.blob("/blob", view)
    client = await server.connect()
    answer = await client.get("/blob")
    assert (answer.status, answer.headers["connection"]) == (502, "close")
    assert await client.ended()
    exchange = await server.exchange()
    assert (exchange.status, exchange.aborted) == (502, "")
    assert view.closed == 1


async def test_a_source_that_fails_on_the_way_resets_the_connection(server: Running, app: Scripted) -> None:
    view = Growing(DATA, here=1000)
    app.blob("/blob", view)
    client = await server.connect()
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await view.waited.wait()
    view.fail(RuntimeError("upstream"))
    with pytest.raises(trio.BrokenResourceError):
        await client.answer()
    exchange = await server.exchange()
    assert (exchange.status, exchange.aborted, exchange.sent) == (200, "source", 1000)
    assert view.closed == 1


async def test_a_client_that_leaves_on_the_way_closes_the_view(
    server: Running, app: Scripted, file: int
) -> None:
    view = FileView(DATA * 20, file)
    app.blob("/blob", view)
    client = await server.connect()
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.stream.receive_some(1000)
    await client.aclose()
    exchange = await server.exchange()
    assert exchange.aborted == "client"
    assert 0 < exchange.sent < len(view.data)
    assert view.closed == 1


async def test_a_client_that_leaves_in_mid_fill_is_noticed(
    app: Scripted, server: Running, clock: trio.testing.MockClock
) -> None:
    view = Growing(DATA, here=1000)
    app.blob("/blob", view)
    client = await server.connect()
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await view.waited.wait()
    await client.aclose()
    left = trio.current_time()
    exchange = await server.exchange()
    assert trio.current_time() - left <= 2
    assert (exchange.aborted, exchange.status, exchange.sent) == ("client", 200, 1000)
    assert view.closed == 1


async def test_a_client_that_leaves_before_the_answer_cancels_its_handler(
    app: Scripted, server: Running, clock: trio.testing.MockClock
) -> None:
    cancelled = False

    async def handler(_: Request) -> Response:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled = True
            raise

    app.routes["/"] = handler
    client = await server.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await trio.sleep(5)
    assert not cancelled
    await client.aclose()
    exchange = await server.exchange()
    assert (exchange.aborted, exchange.status, exchange.first_byte) == ("client", 499, None)
    assert cancelled


async def test_a_client_that_stops_reading_is_cut(
    app: Scripted, server: Running, file: int, clock: trio.testing.MockClock
) -> None:
    view = FileView(DATA * 20, file)
    app.blob("/blob", view)
    client = await server.connect()
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    exchange = await server.exchange()
    assert exchange.aborted == "slow"
    assert 30 <= exchange.seconds <= 45  # the kernels still find room for a while
    assert view.closed == 1
    with pytest.raises(trio.BrokenResourceError):
        await client.read_to_the_end()


async def test_a_client_that_reads_slowly_but_steadily_gets_all(
    app: Scripted, server: Running, file: int, clock: trio.testing.MockClock
) -> None:
    data = DATA * 20  # when our answer ends, its last megabytes are in the kernel's buffers
    app.blob("/blob", FileView(data, file))
    client = await server.connect()
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    while len(client.buffer) < len(data):
        await trio.sleep(20)
        enough = min(len(data), len(client.buffer) + 1_000_000)
        while len(client.buffer) < enough:
            client.buffer += await client.stream.receive_some(1 << 20)
    assert (await client.answer()).body == data
    exchange = await server.exchange()
    assert exchange.aborted == ""
    assert exchange.seconds > 60


@pytest.mark.parametrize("headers", [[("X", "a\r\nY: b")], [("Content-Length", "5")]])
async def test_a_header_that_cannot_be_sent_is_our_own_error(
    headers: list[tuple[str, str]], server: Running, app: Scripted
) -> None:
    view = View(DATA)

    async def handler(_: Request) -> Response:
        return Response(200, headers, BlobBody(view, (Span(0, view.size, False),), view.size))

    app.routes["/"] = handler
    client = await server.connect()
    assert (await client.get("/")).status == 500
    assert await client.ended()
    assert view.closed == 1


async def test_a_handler_that_raises_is_our_own_error(server: Running, app: Scripted) -> None:
    async def handler(_: Request) -> Response:
        raise RuntimeError("a defect")

    app.routes["/"] = handler
    client = await server.connect()
    assert (await client.get("/")).status == 500
    assert (await (await server.connect()).get("/after")).status == 200


async def test_an_application_that_fails_at_once_costs_its_connection_only(
    server: Running, app: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def immediate(*_: object) -> Ready:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(app, "immediate", immediate)
        client = await server.connect()
        with pytest.raises(trio.BrokenResourceError):
            await client.get("/")
    assert (await server.exchange()).status == 499
    assert (await (await server.connect()).get("/after")).status == 200
