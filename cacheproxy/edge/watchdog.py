"""One task for the deadlines of all connections.

A cancel scope for each request would cost a third of the speed. The watchdog looks once a second, so
a deadline is kept to the second. A connection that waits for its next request is one comparison; the rest is
by phase, a table of judges.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Collection, Iterable

import trio

from cacheproxy.edge.limits import Limits
from cacheproxy.edge.wire import Phase, Verdict, Wire

TICK = 1.0


async def watch(wires: Collection[Wire], limits: Limits) -> None:
    """Runs until cancelled. `wires` are those open at each tick."""
    while True:
        await trio.sleep(TICK)
        inspect(wires, trio.current_time(), limits)


def inspect(wires: Collection[Wire], now: float, limits: Limits) -> None:
    """Cut what is overdue, and what waits for a client that is no longer there.

    An idle connection whose next request came in this very moment is spared: its task reads it presently.
    """
    due = [wire for wire in wires if wire.deadline <= now]
    arrived = pending(wire for wire in due if wire.phase is Phase.IDLE)
    for wire in due:
        verdict = judge(wire, now, limits)
        if verdict is not None and wire not in arrived:
            wire.cut(verdict)
    for wire in hung_up(wire for wire in due if wire.phase is Phase.WAITING):
        wire.cut(Verdict.GONE)


def judge(wire: Wire, now: float, limits: Limits) -> Verdict | None:
    """The verdict on a connection that is due; one that is measured by rate may begin another window."""
    return _JUDGES[wire.phase](wire, now, limits)


def hung_up(wires: Iterable[Wire]) -> set[Wire]:
    """Those whose client ended its side, in one system call and past any bytes that it pipelined.

    A client that only half-closes is taken for gone, as by most servers: nothing tells the two apart.
    """
    return _polled(wires, select.POLLRDHUP)


def pending(wires: Iterable[Wire]) -> set[Wire]:
    """Those with bytes, or an end, that nobody has read yet."""
    return _polled(wires, select.POLLIN)


def _polled(wires: Iterable[Wire], event: int) -> set[Wire]:
    """Those where the event, a hang-up or an error is there now."""
    poller = select.poll()
    waiting = {wire.fd: wire for wire in wires}
    for fd in waiting:
        poller.register(fd, event)
    return {waiting[fd] for fd, _ in poller.poll(0)} if waiting else set()


def _rate(wire: Wire, now: float, limits: Limits) -> Verdict | None:
    through = wire.through()
    if through - wire.mark >= limits.least:
        wire.mark, wire.mark_at = through, now
    return Verdict.SLOW if now - wire.mark_at >= limits.window else None


_JUDGES: dict[Phase, Callable[[Wire, float, Limits], Verdict | None]] = {
    Phase.HANDSHAKE: lambda *_: Verdict.HANDSHAKE,
    Phase.HEADER: lambda *_: Verdict.HEADER,
    Phase.IDLE: lambda *_: Verdict.IDLE,
    Phase.LINGERING: lambda *_: Verdict.LINGERED,
    Phase.WAITING: lambda *_: None,
    Phase.RECEIVING: _rate,
    Phase.SENDING: _rate,
}
