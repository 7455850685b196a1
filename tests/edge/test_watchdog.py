from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from cacheproxy.edge import watchdog
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.wire import Phase, Verdict, Wire

LIMITS = Limits()


class Pair:
    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.wire = Wire(ours, 10.0)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.wire.close()
    pair.theirs.close()


@pytest.mark.parametrize(
    ("phase", "verdict"),
    [
        (Phase.HEADER, Verdict.HEADER),
        (Phase.IDLE, Verdict.IDLE),
        (Phase.LINGERING, Verdict.LINGERED),
    ],
)
def test_phases_with_a_deadline_end_at_it(phase: Phase, verdict: Verdict, pair: Pair) -> None:
    pair.wire.expect(phase, 60.0)
    watchdog.inspect([pair.wire], 59.9, LIMITS)
    assert pair.wire.verdict is None
    watchdog.inspect([pair.wire], 60.0, LIMITS)
    assert pair.wire.verdict is verdict
    assert pair.wire.scope.cancel_called


def test_an_idle_connection_is_spared_when_its_next_request_is_there(pair: Pair) -> None:
    pair.wire.expect(Phase.IDLE, 60.0)
    pair.theirs.send(b"GET / HTTP/1.1\r\n")
    watchdog.inspect([pair.wire], 60.0, LIMITS)
    assert pair.wire.verdict is None


async def test_a_body_at_the_least_rate_goes_on(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    pair.wire.measure(Phase.RECEIVING)
    for second in range(1, 200):
        pair.wire.received += LIMITS.rate
        watchdog.inspect([pair.wire], float(second), LIMITS)
    assert pair.wire.verdict is None


async def test_a_body_below_the_least_rate_is_cut(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    pair.wire.measure(Phase.RECEIVING)
    for second in range(1, 30):
        pair.wire.received += LIMITS.rate - 1
        watchdog.inspect([pair.wire], float(second), LIMITS)
    assert pair.wire.verdict is None
    watchdog.inspect([pair.wire], 30.0, LIMITS)
    assert pair.wire.verdict is Verdict.SLOW


async def test_a_stalled_client_is_cut_after_the_window(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    await pair.wire.send(b"nobody reads this")
    pair.wire.measure(Phase.SENDING)
    watchdog.inspect([pair.wire], 29.9, LIMITS)
    assert pair.wire.verdict is None
    watchdog.inspect([pair.wire], 30.0, LIMITS)
    assert pair.wire.verdict is Verdict.SLOW


def test_waiting_for_a_source_has_no_deadline(pair: Pair) -> None:
    pair.wire.wait()
    watchdog.inspect([pair.wire], 1e9, LIMITS)
    assert pair.wire.verdict is None


@pytest.mark.parametrize("pipelined", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_client_that_leaves_while_a_source_is_waited_for_is_noticed(pipelined: bytes, pair: Pair) -> None:
    pair.wire.wait()
    pair.theirs.send(pipelined)
    watchdog.inspect([pair.wire], 1.0, LIMITS)
    assert pair.wire.verdict is None
    pair.theirs.close()
    watchdog.inspect([pair.wire], 2.0, LIMITS)
    assert pair.wire.verdict is Verdict.GONE


def test_those_with_unread_bytes_are_told_apart(pair: Pair) -> None:
    other = Pair()
    pair.theirs.send(b"x")
    assert watchdog.pending([pair.wire, other.wire]) == {pair.wire}
    other.wire.close()
    other.theirs.close()


def test_nobody_to_look_after() -> None:
    watchdog.inspect([], 1.0, LIMITS)
    assert watchdog.pending([]) == set()


async def test_it_looks_once_a_second(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.watch, {pair.wire}, LIMITS)
        await trio.sleep(9.5)
        assert pair.wire.verdict is None
        await trio.sleep(1)
        assert pair.wire.verdict is Verdict.HEADER
        nursery.cancel_scope.cancel()
