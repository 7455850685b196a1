"""TCP in bulk."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from cacheproxy.upstream.wire import GULP, Wire

Pair = tuple[Wire, trio.SocketStream]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield (
            Wire(trio.socket.from_stdlib_socket(ours)),
            trio.SocketStream(trio.socket.from_stdlib_socket(theirs)),
        )


async def test_more_than_the_socket_takes_at_once_is_sent_whole(pair: Pair, nursery: trio.Nursery) -> None:
    wire, peer = pair
    data = bytes(range(256)) * 8192
    nursery.start_soon(wire.send, data)
    received = b""
    while len(received) < len(data):
        received += await peer.receive_some(65536)
    assert received == data


async def test_what_came_is_received_and_then_the_end(pair: Pair) -> None:
    wire, peer = pair
    await peer.send_all(b"abc")
    assert await wire.receive() == b"abc"
    await peer.aclose()
    assert await wire.receive() == b""


async def test_no_more_than_a_gulp_is_received(pair: Pair, nursery: trio.Nursery) -> None:
    wire, peer = pair
    nursery.start_soon(peer.send_all, bytes(4 * GULP))
    sizes: list[int] = []
    while sum(sizes) < 4 * GULP:
        sizes.append(len(await wire.receive()))
    assert max(sizes) <= GULP


async def test_it_is_quiet_until_something_comes(pair: Pair) -> None:
    wire, peer = pair
    assert wire.quiet()
    await peer.send_all(b"x")
    assert not wire.quiet()


async def test_the_end_is_not_quiet_and_neither_is_a_closed_socket(pair: Pair) -> None:
    wire, peer = pair
    await peer.aclose()
    assert not wire.quiet()
    wire.close()
    assert not wire.quiet()


async def test_closing_ends_whoever_waits_and_again_is_nothing(pair: Pair, nursery: trio.Nursery) -> None:
    wire, _peer = pair

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    wire.close()
    wire.close()
