from __future__ import annotations

import itertools
import random

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.edge.framing import Chunked, Counted
from cacheproxy.edge.message import BodyBroken

NEXT = b"GET /next HTTP/1.1\r\n"
WHOLE = b'2\r\nhe\r\n3;x="y"\r\nllo\r\na\r\n\r\n0\r\n\r\nwor\r\n0;z\r\nA: b\r\n\r\n'
PIECES = (b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b";a", b" ", b"3\r\nabc\r\n", b"A: b\r\n", b"\0", b"\xff")


def read(*pieces: bytes) -> tuple[bytes, bytes, Chunked]:
    """(the body, what follows it, the reader)."""
    framing, body, rest = Chunked(), b"", b""
    for piece in pieces:
        part, rest = framing.take(rest + piece)
        body += part
    return body, rest, framing


@given(st.lists(st.integers(0, len(WHOLE + NEXT))))
def test_a_chunked_body_may_come_in_any_pieces(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE + NEXT)]
    pieces = [(WHOLE + NEXT)[start:stop] for start, stop in itertools.pairwise(edges)]
    body, rest, framing = read(*pieces)
    assert (body, rest) == (b"hello\r\n0\r\n\r\nwor", NEXT)
    assert (framing.whole, framing.trailers) == (True, 1)


@given(st.lists(st.binary(max_size=20)), st.integers(0, 50))
def test_a_body_with_a_length_may_come_in_any_pieces(pieces: list[bytes], length: int) -> None:
    framing, body, rest = Counted(length), b"", b""
    for piece in pieces:
        part, left = framing.take(piece)
        body += part
        rest += left
    sent = b"".join(pieces)
    assert (body, rest, framing.whole) == (sent[:length], sent[length:], len(sent) >= length)


def mutate(chance: random.Random) -> bytes:
    data = bytearray(WHOLE if chance.random() < 0.5 else WHOLE.replace(b"A: b\r\n", b""))
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at:at] = chance.choice(PIECES)
            case _:
                del data[at : at + chance.randint(1, 4)]
    return bytes(data)


def by_h11(data: bytes) -> tuple[bytes, bytes]:
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    body = b""
    reader.next_event()
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return body, reader.trailing_data[0]


def test_what_is_accepted_means_the_same_to_h11() -> None:
    chance = random.Random(20_26)
    accepted = 0
    for _ in range(20_000):
        data = mutate(chance)
        try:
            body, rest, framing = read(data + NEXT)
        except BodyBroken:
            continue
        if framing.whole:
            accepted += 1
            assert (body, rest) == by_h11(data + NEXT), data
    assert accepted > 5_000


@pytest.mark.parametrize("line", [b"3", b"3\r", b"3;abc", b"3\r\nabc\r", b"0\r\n\r"])
def test_a_line_that_may_become_whole_is_waited_for(line: bytes) -> None:
    _, _, framing = read(line)
    assert not framing.whole
