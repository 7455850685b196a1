from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from cacheproxy.edge import slowpath
from cacheproxy.edge.message import BodyBroken, BodyTooLarge
from cacheproxy.edge.prefilter import Refusal
from cacheproxy.edge.slowpath import Parsed, RequestBody
from cacheproxy.edge.wire import Phase, Wire


def parse(*lines: bytes) -> Parsed:
    parsed = slowpath.parse(b"\r\n".join((*lines, b"", b"")))
    assert isinstance(parsed, Parsed)
    return parsed


class Talk:
    """A body that is read from one end of a socket pair while it is written at the other."""

    def __init__(self, *fields: bytes, rest: bytes = b"") -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.wire = Wire(ours, 0.0)
        self.body = RequestBody(parse(b"PUT / HTTP/1.1", b"Host: a", *fields), self.wire, rest)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()
        self.theirs.close()


LENGTH = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"


def test_repeated_fields_are_joined() -> None:
    parsed = parse(b"GET / HTTP/1.1", b"Host: a", b"Accept: x", b"accept: y", b"Cookie: a=1", b"Cookie: b=2")
    assert parsed.headers == {"host": "a", "accept": "x, y", "cookie": "a=1; b=2"}


def test_bytes_beyond_ascii_are_latin_1() -> None:
    assert parse(b"GET / HTTP/1.1", b"Host: a", b"X: \xe9").headers["x"] == "\xe9"


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        ((b"GET / HTTP/1.1", b"Host: a"), True),
        ((b"GET / HTTP/1.1", b"Host: a", b"Connection: Close"), False),
        ((b"GET / HTTP/1.1", b"Host: a", b"Connection: x, close"), False),
        ((b"GET / HTTP/1.1", b"Host: a", b"Connection: x"), True),
        ((b"GET / HTTP/1.0", b"Host: a"), False),
        ((b"GET / HTTP/1.0", b"Host: a", b"Connection: keep-alive"), False),
    ],
)
def test_who_wants_to_keep_the_connection(lines: tuple[bytes, ...], keep_alive: bool) -> None:
    assert parse(*lines).keep_alive is keep_alive


def test_what_the_pre_filter_refuses_never_reaches_h11() -> None:
    assert isinstance(slowpath.parse(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), Refusal)


async def test_no_body_is_finished_at_once() -> None:
    with Talk(rest=b"GET /next") as talk:
        assert talk.body.finished
        assert talk.body.leftover == b"GET /next"
        assert await talk.body.read(0) == b""


@pytest.mark.parametrize(("field", "sent"), [(LENGTH, b"hello"), (CHUNKED, CHUNKS)])
async def test_a_body_that_came_with_the_head(field: bytes, sent: bytes) -> None:
    with Talk(field, rest=sent + b"GET /next") as talk:
        assert await talk.body.read(5) == b"hello"
        assert talk.body.finished
        assert talk.body.leftover == b"GET /next"


@pytest.mark.parametrize(("field", "sent"), [(LENGTH, b"hello"), (CHUNKED, CHUNKS)])
async def test_a_body_that_comes_byte_by_byte(field: bytes, sent: bytes) -> None:
    with Talk(field) as talk:

        async def drip() -> None:
            for at in range(len(sent)):
                talk.theirs.send(sent[at : at + 1])
                await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert await talk.body.read(5) == b"hello"
        assert talk.body.reusable(0)
        assert talk.wire.phase is Phase.WAITING


@pytest.mark.parametrize(("field", "sent"), [(LENGTH, b"hello"), (CHUNKED, CHUNKS)])
async def test_a_body_is_received_as_it_comes(field: bytes, sent: bytes) -> None:
    with Talk(field, rest=sent[:10]) as talk:
        got = [await talk.body.receive()]
        talk.theirs.send(sent[10:])
        while part := await talk.body.receive():
            got.append(part)
        assert b"".join(got) == b"hello"
        assert await talk.body.receive() == b""
        assert talk.wire.phase is Phase.WAITING


async def test_a_body_that_is_received_and_ends_early_is_broken() -> None:
    with Talk(LENGTH, rest=b"hel") as talk:
        talk.theirs.shutdown(socket.SHUT_WR)
        assert await talk.body.receive() == b"hel"
        with pytest.raises(BodyBroken):
            await talk.body.receive()


@pytest.mark.parametrize(("field", "sent"), [(LENGTH, b"hello"), (CHUNKED, CHUNKS)])
async def test_a_body_over_the_limit(field: bytes, sent: bytes) -> None:
    with Talk(field, rest=sent) as talk, pytest.raises(BodyTooLarge):
        await talk.body.read(4)


async def test_a_body_that_ends_early_is_broken() -> None:
    with Talk(LENGTH, rest=b"hel") as talk:
        talk.theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(BodyBroken):
            await talk.body.read(5)


@pytest.mark.parametrize("fields", [(LENGTH,), (LENGTH, b"Expect: 100-continue")])
async def test_a_body_whose_client_goes_away_is_broken(fields: tuple[bytes, ...]) -> None:
    """So the handler lets it pass, whatever it does with other exceptions."""
    with Talk(*fields) as talk:
        talk.wire.send_now(b"closing on unread bytes is a reset")
        talk.theirs.close()
        with pytest.raises(BodyBroken):
            await talk.body.read(5)


async def test_a_client_that_asks_is_told_to_go_on_once() -> None:
    with Talk(LENGTH, b"Expect: 100-continue") as talk:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                await trio.testing.wait_all_tasks_blocked()
                assert talk.theirs.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
                talk.theirs.send(b"hel")
                await trio.testing.wait_all_tasks_blocked()
                talk.theirs.send(b"lo")

            assert await talk.body.read(5) == b"hello"
        talk.theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            talk.theirs.recv(1000)


async def test_an_unread_body_is_drained() -> None:
    with Talk(LENGTH, rest=b"helloGET /next") as talk:
        assert await talk.body.drain(5)
        assert talk.body.leftover == b"GET /next"


async def test_an_unread_body_that_is_too_large_is_not() -> None:
    with Talk(LENGTH, rest=b"hello") as talk:
        assert not talk.body.reusable(4)
        assert not await talk.body.drain(4)


async def test_an_unread_chunked_body_is_drained_up_to_the_limit() -> None:
    with Talk(CHUNKED, rest=CHUNKS) as talk:
        assert talk.body.reusable(4)
        assert not await talk.body.drain(4)


async def test_nobody_waits_for_the_body_of_a_client_that_was_never_told_to_go_on() -> None:
    with Talk(LENGTH, b"Expect: 100-continue") as talk:
        assert not await talk.body.drain(100)
