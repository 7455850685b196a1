"""HTTP/1.1 as the peer may speak it, fed from memory."""

from __future__ import annotations

import ssl
from contextlib import suppress
from itertools import pairwise

import h11
import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.failures import Cause
from cacheproxy.upstream.causes import BrokenOff, RecordBroken, cause_of
from cacheproxy.upstream.connection import Connection, Timeouts
from tests.upstream.servers import chunked, reply

SOON = Timeouts(connect=5.0, read=5.0, write=5.0)


class Script:
    """A stream that receives what it was given, piece by piece; then the end, an error, or nothing ever."""

    def __init__(
        self, *pieces: bytes, then: Exception | None = None, hang: bool = False, every: float = 0.0
    ) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.then = then
        self.hang = hang
        self.every = every
        self.sent = b""
        self.fails_to_send: Exception | None = None
        self.still = True
        self.closed = False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails_to_send:
            raise self.fails_to_send
        self.sent += data

    async def receive(self) -> bytes:
        await trio.sleep(self.every)
        if self.pieces:
            return self.pieces.pop(0)
        if self.hang:
            await trio.sleep_forever()
        if self.then:
            raise self.then
        return b""

    def close(self) -> None:
        self.closed = True

    def quiet(self) -> bool:
        return self.still and not self.closed


def damaged() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] bad record mac")
    error.reason = "BAD_RECORD_MAC"
    return error


def asking(method: str = "GET") -> h11.Request:
    return h11.Request(method=method, target="/v2/", headers=[("Host", "registry.example")])


async def whole(connection: Connection) -> bytes:
    body = b""
    while part := await connection.part(5.0):
        body += part
    return body


async def exchanged(stream: Script, method: str = "GET") -> tuple[h11.Response, bytes, Connection]:
    connection = Connection(stream)
    response = await connection.exchange(asking(method), b"", SOON)
    return response, await whole(connection), connection


CLOSE = ("Connection: close",)

RESPONSES = {
    "length": ("GET", reply(b"abc"), b"abc", True),
    "no body": ("GET", reply(b""), b"", True),
    "chunks": ("GET", chunked(b"ab", b"c"), b"abc", True),
    "no chunks": ("GET", chunked(), b"", True),
    "trailers": ("GET", chunked(b"abc")[:-2] + b"Digest: x\r\n\r\n", b"abc", True),
    "until the end": ("GET", b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc", False),
    "old until the end": ("GET", b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", False),
    "old with length": ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
    "told to close": ("GET", reply(b"abc", headers=CLOSE), b"abc", False),
    "head": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"", True),
    "head of chunks": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", True),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", b"", True),
    "early hints": ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + reply(b"abc"), b"abc", True),
    "head with a body": ("HEAD", reply(b"abc"), b"", False),
    "204 with a body": ("GET", b"HTTP/1.1 204 No Content\r\n\r\nabc", b"", False),
    "longer than it says": ("GET", reply(b"abc") + b"d", b"abc", False),
    "an answer nobody asked for": ("GET", reply(b"abc") + reply(b"evil"), b"abc", False),
    "the same after chunks": ("GET", chunked(b"abc") + reply(b"evil"), b"abc", False),
}


@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_has_its_body_and_says_whether_another_may_follow(name: str) -> None:
    method, sent, body, reusable = RESPONSES[name]
    _, received, connection = await exchanged(Script(sent), method)
    assert (received, connection.reusable()) == (body, reusable)


@pytest.mark.parametrize("name", RESPONSES)
async def test_it_does_not_matter_how_the_bytes_of_a_response_arrive(name: str) -> None:
    method, sent, body, _ = RESPONSES[name]
    singly = Script(*(sent[n : n + 1] for n in range(len(sent))))
    _, received, _ = await exchanged(singly, method)
    assert received == body


@given(cuts=st.lists(st.integers(0, 80)), name=st.sampled_from(["length", "chunks", "early hints"]))
def test_wherever_it_is_cut_a_response_is_read_alike(cuts: list[int], name: str) -> None:
    _, sent, body, _ = RESPONSES[name]
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(sent)}), len(sent)]
    pieces = [sent[a:b] for a, b in pairwise(edges)]

    async def read() -> None:
        _, received, connection = await exchanged(Script(*pieces, hang=True))
        assert received == body
        assert connection.reusable()

    trio.run(read)


@given(
    name=st.sampled_from(sorted(RESPONSES)), at=st.integers(0, 120), cut=st.integers(0, 8), junk=st.binary()
)
def test_whatever_is_sent_is_a_response_or_a_failure_of_the_request(
    name: str, at: int, cut: int, junk: bytes
) -> None:
    method, sent, _, _ = RESPONSES[name]

    async def read() -> None:
        with suppress(httpx.TransportError):
            _, _, connection = await exchanged(Script(sent[:at] + junk + sent[at + cut :]), method)
            connection.reusable()

    trio.run(read)


async def test_the_request_is_one_write() -> None:
    stream = Script(reply())
    connection = Connection(stream)
    request = h11.Request(
        method="POST", target="/token", headers=[("Host", "a.example"), ("Content-Length", "3")]
    )
    await connection.exchange(request, b"a=b", SOON)
    assert stream.sent == b"POST /token HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\na=b"


async def test_one_exchange_follows_another() -> None:
    stream = Script(reply(b"one"), chunked(b"two"), reply(b"three"))
    connection = Connection(stream)
    bodies = []
    for _ in range(3):
        await connection.exchange(asking(), b"", SOON)
        bodies.append(await whole(connection))
        assert connection.reusable()
    assert bodies == [b"one", b"two", b"three"]


async def test_the_heads_fields_are_as_they_were_sent() -> None:
    response, _, _ = await exchanged(Script(b"HTTP/1.1 200 Fine\r\nDocker-Content-Digest: sha256:ab\r\n\r\n"))
    assert response.headers.raw_items() == [(b"Docker-Content-Digest", b"sha256:ab")]
    assert (response.status_code, response.reason) == (200, b"Fine")


async def test_small_chunks_are_put_together() -> None:
    connection = Connection(Script(chunked(*[b"x"] * 1000)))
    await connection.exchange(asking(), b"", SOON)
    assert await connection.part(5.0) == b"x" * 1000


async def test_parts_of_a_known_length_are_passed_on_as_they_came() -> None:
    pieces = [bytes([n]) * 100_000 for n in range(5)]
    connection = Connection(Script(reply(b"".join(pieces))[:-500_000], *pieces))
    await connection.exchange(asking(), b"", SOON)
    for piece in pieces:
        assert await connection.part(5.0) is piece


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
        reply(b"abc")[:-1],
        reply(b"abc")[:-3],
        chunked(b"abc")[:-1],
        chunked(b"abc")[:-5],
        chunked(b"abc")[:-9],
    ],
)
async def test_an_end_before_the_end_is_a_failed_connection(sent: bytes) -> None:
    with pytest.raises(BrokenOff) as broken:
        await exchanged(Script(sent))
    assert cause_of(broken.value) is Cause.CONNECT


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + reply(),
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    ],
)
async def test_what_is_not_http_is_a_failure_of_the_protocol(sent: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError) as wrong:
        await exchanged(Script(sent, hang=True))
    assert cause_of(wrong.value) is Cause.PROTOCOL


@pytest.mark.parametrize(
    ("raised", "expected", "cause"),
    [
        (ConnectionResetError("reset"), httpx.ReadError, Cause.CONNECT),
        (trio.ClosedResourceError("closed"), httpx.ReadError, Cause.CONNECT),
        (damaged(), RecordBroken, Cause.TLS),
    ],
)
@pytest.mark.parametrize("after", [0, 20, -1])
async def test_an_error_of_the_stream_keeps_its_cause(
    raised: Exception, expected: type[Exception], cause: Cause, after: int
) -> None:
    with pytest.raises(expected) as failed:
        await exchanged(Script(reply(b"abc")[:after], then=raised))
    assert cause_of(failed.value) is cause


async def test_a_head_that_drips_has_one_limit_as_a_whole(autojump_clock: trio.testing.MockClock) -> None:
    head = reply()
    begun = trio.current_time()
    with pytest.raises(httpx.ReadTimeout):
        await exchanged(Script(*(head[n : n + 1] for n in range(len(head))), every=1.0))
    assert trio.current_time() - begun == pytest.approx(5.0)


async def test_a_body_may_take_as_long_as_it_moves(autojump_clock: trio.testing.MockClock) -> None:
    _, body, _ = await exchanged(Script(reply(b"x" * 100)[:-100], *[b"x"] * 100, every=4.0))
    assert len(body) == 100
    assert trio.current_time() > 300


async def test_chunks_whose_framing_drips_are_a_stall(autojump_clock: trio.testing.MockClock) -> None:
    drip = Script(chunked(), *[b"0"] * 60, every=1.0)
    drip.pieces[0] = drip.pieces[0].removesuffix(b"0\r\n\r\n")
    with pytest.raises(httpx.ReadTimeout):
        await exchanged(drip)
    assert trio.current_time() < 10


@pytest.mark.parametrize("sent", [reply(b"abc")[:-1], chunked(b"abc")[:-5]])
async def test_a_body_that_stalls_is_a_timeout(sent: bytes, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(httpx.ReadTimeout) as stalled:
        await exchanged(Script(sent, hang=True))
    assert cause_of(stalled.value) is Cause.TIMEOUT


async def test_an_answer_that_came_before_the_request_was_taken_is_read() -> None:
    stream = Script(reply(b"no", status="413 Content Too Large"))
    stream.fails_to_send = BrokenPipeError("broken pipe")
    response, _, connection = await exchanged(stream)
    assert response.status_code == 413
    assert connection.answered


async def test_without_such_an_answer_the_connection_failed_unanswered() -> None:
    stream = Script(then=ConnectionResetError("reset"))
    stream.fails_to_send = BrokenPipeError("broken pipe")
    connection = Connection(stream)
    with pytest.raises(httpx.ReadError):
        await connection.exchange(asking(), b"", SOON)
    assert not connection.answered


async def test_a_peer_that_does_not_take_the_request_is_a_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Deaf(Script):
        async def send(self, data: bytes) -> None:
            await trio.sleep_forever()

    with pytest.raises(httpx.WriteTimeout):
        await exchanged(Deaf())


@pytest.mark.parametrize("sent", [reply(b"page"), chunked(b"page")])
async def test_a_body_that_nobody_reads_but_that_is_here_does_not_end_the_connection(sent: bytes) -> None:
    connection = Connection(Script(sent, hang=True))
    await connection.exchange(asking(), b"", SOON)
    assert connection.reusable()


@pytest.mark.parametrize("sent", [reply(b"page")[:-1], chunked(b"page")[:-1], chunked(b"page") + b"x"])
async def test_a_body_that_is_not_here_whole_ends_it(sent: bytes) -> None:
    connection = Connection(Script(sent, hang=True))
    await connection.exchange(asking(), b"", SOON)
    assert not connection.reusable()


async def test_damage_in_a_body_that_nobody_reads_ends_it() -> None:
    connection = Connection(Script(chunked(b"page")[:-5] + b"zz\r\n", hang=True))
    await connection.exchange(asking(), b"", SOON)
    assert not connection.reusable()


async def test_a_connection_that_something_came_in_on_is_not_used_again() -> None:
    stream = Script(reply())
    _, _, connection = await exchanged(stream)
    stream.still = False
    assert not connection.reusable()


def test_timeouts_are_the_requests() -> None:
    request = httpx.Request(
        "GET", "http://a.example/", extensions={"timeout": {"connect": 1.0, "read": None}}
    )
    assert Timeouts.of(request) == Timeouts(connect=1.0, read=float("inf"), write=float("inf"))
