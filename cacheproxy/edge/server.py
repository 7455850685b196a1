"""The server: accept loops, one watchdog, an orderly end.

`serve` owns three nurseries, one in the other: helpers, connections, accept loops. The end goes the other
way: stop accepting, let answers finish, cut what does not, and only then stop watching.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence

import structlog
import trio

from cacheproxy.edge import listeners as listening
from cacheproxy.edge import metrics
from cacheproxy.edge.admission import Admission, Key, key_of
from cacheproxy.edge.connection import Connection
from cacheproxy.edge.forwarded import Forwarding, parse_address
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.message import Address, Application, Log
from cacheproxy.edge.prefilter import Refusal
from cacheproxy.edge.shared import Edge
from cacheproxy.edge.tls import TURNED_AWAY, TLSWire
from cacheproxy.edge.watchdog import pending, watch
from cacheproxy.edge.wire import Phase, Verdict, Wire

log = structlog.get_logger(__name__)

BATCH = 64
"""Connections accepted in a row before the others get their turn."""
OVERLOAD_PAUSE = 0.1
"""Seconds. Descriptors come back as connections end; the backlog keeps the new ones meanwhile."""
_OVERLOAD = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_CLOSED_BEFORE = frozenset(
    (
        *(errno.ECONNABORTED, errno.ECONNRESET, errno.EPERM, errno.EPROTO, errno.ETIMEDOUT),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENONET),
        *(errno.ENOPROTOOPT, errno.EOPNOTSUPP),
    )
)
"""The client left, a firewall rule said no, or the network broke, between its connect and our accept: Linux
hands such errors of the new socket to whoever accepts it (accept(2))."""

_UNASKED = (Phase.IDLE, Phase.HANDSHAKE)
"""Nothing was asked yet that would want an answer."""

TLS = Callable[[], ssl.SSLContext | None]
"""The context for a connection that begins now: a certificate may have been renewed. None: plain HTTP."""


def plain() -> None:
    """A TLS that there is none of."""


async def serve(
    listeners: Sequence[socket.socket],
    application: Application,
    *,
    limits: Limits,
    forwarding: Forwarding | None = None,
    log: Log,
    drain: trio.Event,
    tls: TLS = plain,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `drain` is set and all connections have ended, at most `limits.drain` seconds later.

    `tls` is for all connections but those of unix sockets; `forwarding` knows the proxies (None: there are
    none).
    Takes the listeners over: they are closed as soon as the drain begins. `task_status.started()` says that
    connections are accepted.
    """
    edge = Edge(application, limits, forwarding or Forwarding(), log)
    server = _Server(edge, tls)
    try:
        for listener in listeners:
            listening.tune(listener)
        async with trio.open_nursery() as helpers:
            helpers.start_soon(watch, server.wires, limits)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(server.accept, listener, connections)
                    task_status.started()
                    await drain.wait()
                    accepting.cancel_scope.cancel()
                _close(listeners)
                server.drain()
                connections.cancel_scope.deadline = trio.current_time() + limits.drain
            helpers.cancel_scope.cancel()
    finally:
        _close(listeners)


def _close(listeners: Iterable[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


class _Server:
    """The open connections, and how they come in and go."""

    def __init__(self, edge: Edge, tls: TLS) -> None:
        self._edge = edge
        self._tls = tls
        self._admission = Admission(edge.limits)
        self.wires: set[Wire] = set()

    async def accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        """Accept for ever. Raises OSError for what is no overload: then the listener itself is broken."""
        tls = plain if listener.family == socket.AF_UNIX else self._tls
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(BATCH):
                    self._enter(*listener.accept(), tls, connections)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _OVERLOAD:
                    log.warning("accepting paused", error=error.strerror, connections=len(self.wires))
                    await trio.sleep(OVERLOAD_PAUSE)
                elif error.errno not in _CLOSED_BEFORE:
                    raise

    def drain(self) -> None:
        """End what waits for a request, unless one is on its way in; the others end with their answer."""
        self._edge.draining = True
        idle = [
            wire
            for wire in self.wires
            if wire.phase in _UNASKED or (wire.phase is Phase.HEADER and not wire.received)
        ]
        arrived = pending(idle)
        for wire in idle:
            if wire not in arrived:
                wire.cut(Verdict.IDLE)

    def _enter(self, sock: socket.socket, name: object, tls: TLS, connections: trio.Nursery) -> None:
        sock.setblocking(False)
        context = tls()
        neighbour = parse_address(name[0]) if isinstance(name, tuple) else None
        key = None if self._edge.forwarding.lists(neighbour) else key_of(neighbour)
        limit = self._admission.enter(key)
        if limit is None:
            wire = self._wire(sock, context)
            self.wires.add(wire)
            connections.start_soon(self._converse, wire, neighbour, key)
        else:
            self._turn_away(sock, limit, context is not None)

    def _wire(self, sock: socket.socket, context: ssl.SSLContext | None) -> Wire:
        now, limits = trio.current_time(), self._edge.limits
        if context is None:
            return Wire(sock, now + limits.header)
        return TLSWire(sock, now + limits.handshake, context)

    async def _converse(self, wire: Wire, neighbour: Address | None, key: Key) -> None:
        metrics.CONNECTIONS.inc()
        try:
            await Connection(self._edge, wire, neighbour).run()
        finally:
            metrics.CONNECTIONS.dec()
            if wire.verdict is not None:
                metrics.CUT.labels(wire.verdict).inc()
            self.wires.discard(wire)
            self._admission.leave(key)
            wire.close()

    def _turn_away(self, sock: socket.socket, limit: str, tls: bool) -> None:
        """503 at once (before TLS: an alert) and close, without a task or a wait. What already came is read,
        lest closing resets the answer.
        """
        metrics.REFUSED.labels(limit).inc()
        wire = Wire(sock, 0.0)
        start, content = self._edge.refusal(Refusal(503, "too many connections"), self._edge.next_id())
        wire.send_now(TURNED_AWAY if tls else start + content)
        wire.discard()
        wire.close()
