"""Requests that two servers in a row could read in two ways: each is answered once, and closed."""

from __future__ import annotations

import pytest

from cacheproxy.edge.message import Request, Response
from tests.edge.harness import Running, Scripted


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join((line, *(field for field in (host, *fields) if field), b"", b""))


def chunked(body: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked", line=b"PUT /body HTTP/1.1") + body


HEADS = {
    "both Content-Length and Transfer-Encoding": get(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    "Content-Length as a list": get(b"Content-Length: 4, 4"),
    "equal Content-Lengths": get(b"Content-Length: 4", b"Content-Length: 4"),
    "differing Content-Lengths": get(b"Content-Length: 4", b"Content-Length: 5"),
    "a signed Content-Length": get(b"Content-Length: +4"),
    "a Content-Length in hexadecimal": get(b"Content-Length: 0x4"),
    "a Content-Length of 24 digits": get(b"Content-Length: " + b"1" * 24),
    "Transfer-Encoding with HTTP/1.0": get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    "two Transfer-Encodings": get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "a folded line": get(b"X: a\r\n b"),
    "a bare LF between fields": get(b"X: a\nY: b"),
    "a bare LF as blank line": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a bare CR in a value": get(b"X: a\rb"),
    "NUL in a value": get(b"X: a\0b"),
    "a space before the colon": get(b"X : a"),
    "an absolute target": get(line=b"GET http://a/ HTTP/1.1"),
    "an authority for a target": get(line=b"GET a:443 HTTP/1.1"),
    "an asterisk for a target": get(line=b"OPTIONS * HTTP/1.1"),
    "CONNECT": get(line=b"CONNECT a:443 HTTP/1.1"),
    "TRACE": get(line=b"TRACE / HTTP/1.1"),
    "an upgrade": get(b"Connection: upgrade", b"Upgrade: h2c"),
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": get(line=b"GET / HTTP/1.2"),
    "no version": b"GET /\r\n\r\n",
    "two spaces in the request line": get(line=b"GET  / HTTP/1.1"),
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no Host": get(host=b""),
    "an empty Host": get(host=b"Host:"),
    "two Hosts": get(b"Host: a"),
    "a Host with a path": get(host=b"Host: a/../b?x#y"),
    "a Host with a user": get(host=b"Host: u@a"),
}
CHUNKS = {
    "a bad chunk footer": b"3\r\nabcXX0\r\n\r\n",
    "an LF in a chunk extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a chunk size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size of 24 digits": b"0" * 23 + b"3\r\nabc\r\n0\r\n\r\n",
    "a chunk size that ends in a bare LF": b"3\nabc\n",
    "a last chunk that ends in a bare LF": b"3\r\nabc\r\n0\r\n\n",
    "a negative chunk size": b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size over 64 bits": b"1" + b"0" * 15 + b"3\r\nabc\r\n0\r\n\r\n",
    "a space after the chunk size": b"3 \r\nabc\r\n0\r\n\r\n",
    "a bare CR in a chunk extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "a chunk extension without end": b"3;" + b"a" * 9000 + b"\r\nabc\r\n0\r\n\r\n",
    "a bare LF in a trailer": b"3\r\nabc\r\n0\r\nA: b\nC: d\r\n\r\n",
    "a trailer that is no field": b"3\r\nabc\r\n0\r\nabc\r\n\r\n",
    "trailers without end": b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS.keys())
async def test_a_head_that_can_be_read_in_two_ways(data: bytes, server: Running, app: Scripted) -> None:
    client = await server.connect()
    await client.send(data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert await client.ended()
    assert app.requests == []


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
async def test_a_body_that_can_be_read_in_two_ways(body: bytes, server: Running, app: Scripted) -> None:
    async def whole(request: Request) -> Response:
        return Response(201, body=await request.read_body(100))

    app.routes["/body"] = whole
    client = await server.connect()
    await client.send(chunked(body) + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.answer()).status == 400
    assert await client.ended()
    assert [request.target for request in app.requests] == ["/body"]


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
async def test_a_bad_body_that_nobody_reads_ends_the_connection(
    body: bytes, server: Running, app: Scripted
) -> None:
    client = await server.connect()
    await client.send(chunked(body) + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.answer()).status == 200
    assert await client.ended()
    assert [request.target for request in app.requests] == ["/body"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get(b"Transfer-Encoding: gzip, chunked"), 501),
        (get(b"Transfer-Encoding: xchunked"), 501),
        (get(b"Expect: 200-ok"), 417),
        (get(*(b"X-%d: y" % number for number in range(100))), 431),
        (get(line=b"GET /" + b"a" * 9216 + b" HTTP/1.1"), 414),
    ],
)
async def test_other_refusals_have_a_status_of_their_own(data: bytes, status: int, server: Running) -> None:
    client = await server.connect()
    await client.send(data)
    assert (await client.answer()).status == status
    assert await client.ended()


async def test_trailers_are_dropped_and_end_the_connection(server: Running, app: Scripted) -> None:
    async def whole(request: Request) -> Response:
        return Response(201, body=await request.read_body(100))

    app.routes["/body"] = whole
    client = await server.connect()
    await client.send(
        chunked(b"3\r\nabc\r\n0\r\nHost: b\r\n\r\n") + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    answer = await client.answer()
    assert (answer.status, answer.body) == (201, b"abc")
    assert await client.ended()
    assert [request.headers["host"] for request in app.requests] == ["a"]
