from __future__ import annotations

import random

import pytest

from cacheproxy.edge import fastpath, slowpath

CONTAINERD = (
    b"GET /v2/library/alpine/manifests/latest?ns=docker.io HTTP/1.1\r\n"
    b"Host: 127.0.0.1:5000\r\n"
    b"User-Agent: containerd/v2.0.0\r\n"
    b"Accept: application/vnd.oci.image.index.v1+json, */*\r\n"
    b"Accept-Encoding: gzip\r\n\r\n"
)


def test_a_plain_request_is_taken_apart() -> None:
    assert fastpath.parse(CONTAINERD) == (
        "GET",
        "/v2/library/alpine/manifests/latest?ns=docker.io",
        {
            "host": "127.0.0.1:5000",
            "user-agent": "containerd/v2.0.0",
            "accept": "application/vnd.oci.image.index.v1+json, */*",
            "accept-encoding": "gzip",
        },
    )


def test_head_is_plain_too() -> None:
    assert fastpath.parse(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n") == ("HEAD", "/", {"host": "a"})


def test_an_explicit_keep_alive_is_plain() -> None:
    assert fastpath.parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n") is not None


def test_repeated_accepts_are_plain() -> None:
    """As docker and podman ask for manifests."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nX: z\r\naccept: y\r\n\r\n"
    assert fastpath.parse(data) == ("GET", "/", {"host": "a", "accept": "x, y", "x": "z"})


def test_a_range_is_plain() -> None:
    parsed = fastpath.parse(b"GET / HTTP/1.1\r\nHost: [::1]:5000\r\nRange: bytes=0-\r\n\r\n")
    assert parsed is not None
    assert parsed[2]["range"] == "bytes=0-"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        CONTAINERD[:-1],
        CONTAINERD + b"G",
        CONTAINERD + CONTAINERD,
        b"\r\n" + CONTAINERD,
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nAccept: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/../b?x#y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nVia: x\r\nVia: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nVia: x\r\nAccept: a\r\nAccept: b\r\nVia: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nTE: trailers\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: trailing \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(40)) + b"\r\n",
    ],
)
def test_whatever_is_not_plain_is_left_to_the_slow_path(data: bytes) -> None:
    assert fastpath.parse(data) is None


SEEDS = (
    CONTAINERD,
    b"HEAD /v2/ HTTP/1.1\r\nHost: [::1]:5000\r\nConnection: keep-alive\r\nRange: bytes=0-\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: a.example\r\nContent-Length: 0\r\nAccept: a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX:  y\t z\r\n\r\n0\r\n\r\n",
)
PIECES = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\x7f", b"\x80", b",", b"#", b"/", b"\r\n "),
    *(b"Host: b\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"TE: x\r\n"),
    *(b"HTTP/1.0", b"HTTP/1.1", b"GET ", b"HEAD ", b"X-Y: z\r\n", b"Accept: q\r\n", b"\r\n\r\n", b":5000"),
)


def mutate(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at:at] = chance.choice(PIECES)
            case 2:
                del data[at : at + chance.randint(1, 8)]
            case _:
                end = data.find(b"\r\n", at) + 2
                data[end:end] = chance.choice(PIECES)
    return bytes(data)


def test_what_the_fast_path_accepts_the_slow_path_reads_alike() -> None:
    chance = random.Random(20_26)
    accepted = 0
    for _ in range(200_000):
        data = mutate(chance)
        plain = fastpath.parse(data)
        if plain is None:
            continue
        accepted += 1
        slow = slowpath.parse(data)
        assert isinstance(slow, slowpath.Parsed), data
        assert (slow.method, slow.target, slow.headers) == plain, data
        assert slow.keep_alive, data
        assert slow.declared == 0, data
    assert accepted > 10_000
