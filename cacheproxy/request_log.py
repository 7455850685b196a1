"""One line for each request, with its outcome.

A request costs an append; lines are made and written in batches by a task: no request waits for the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from cacheproxy import log
from cacheproxy.config.sections import Log
from cacheproxy.edge.message import Exchange
from cacheproxy.log import printable, quoted

LAG = 0.2
"""Seconds a line waits for others at most."""

BATCH = 256
"""Lines that are made in one step of the loop (about a millisecond), and that end the waiting."""

BACKLOG = 32_768
"""Requests waiting to be written (about 1 KiB each) before new ones are only counted: whoever reads the log
has stopped, and that must not eat the memory."""

SHUTDOWN = 2.0
"""Seconds to write what is left when the daemon stops."""

PIPE_BUF = 4096
"""Bytes that reach a pipe in one piece, whoever else writes to it (pipe(7))."""

LOGGED_QUERY = frozenset({"ns", "n", "last", "artifactType", "digest"})
"""Parameters whose values are logged. Any other may be a secret that a client sent to the wrong place."""

Render = Callable[[Exchange], str]


def request_log(settings: Log, descriptor: int = log.STANDARD_ERROR) -> RequestLog | None:
    """The log of requests, if there is one: its lines are of level "info"."""
    if not settings.requests or log.LEVELS[settings.level] > log.LEVELS["info"]:
        return None
    render = console_line if log.is_console(settings, descriptor) else JsonLines()
    return RequestLog(render, lambda lines: log.write(descriptor, lines))


def unlogged(exchange: Exchange) -> None:
    """The log of requests when there is none."""


class RequestLog:
    """Call it with each finished request; `run` writes the lines."""

    def __init__(self, render: Render, write: Callable[[bytes], None]) -> None:
        self._render = render
        self._write = write
        self._waiting: list[Exchange] = []
        self._lost = 0
        self._begun = trio.Event()
        self._enough = trio.Event()
        self._writer = trio.CapacityLimiter(1)

    def __call__(self, exchange: Exchange) -> None:
        waiting = self._waiting
        count = len(waiting)
        if count >= BACKLOG:
            self._lost += 1
            return
        waiting.append(exchange)
        if count == 0:
            self._begun.set()
        elif count == BATCH:
            self._enough.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left: cancel it after the last request has ended."""
        try:
            while True:
                await self._begun.wait()
                with trio.move_on_after(LAG):
                    await self._enough.wait()
                await self._flush()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN):
                await self._flush()
                async with self._writer:  # a thread that was left behind above may still be writing
                    pass

    async def _flush(self) -> None:
        self._begun = trio.Event()
        self._enough = trio.Event()
        while self._waiting:
            # Nothing is lost to a cancellation: it strikes here, or while the thread already has the lines.
            await trio.lowlevel.checkpoint()
            batch = self._waiting[:BATCH]
            del self._waiting[:BATCH]
            lines = [self._render(exchange) for exchange in batch]
            lost, self._lost = self._lost, 0
            if lost:
                lines.append(f'{{"level":"warning","event":"request lines lost","lines":{lost}}}')
            # A stopped reader blocks this thread and nothing else; at shutdown it is left behind.
            await trio.to_thread.run_sync(
                self._write_lines, lines, limiter=self._writer, abandon_on_cancel=True
            )

    def _write_lines(self, lines: list[str]) -> None:
        """In pieces that a pipe takes whole, so that no event of another thread lands within a line."""
        piece: list[bytes] = []
        size = 0
        for line in lines:
            data = line.encode("ascii", "backslashreplace") + b"\n"
            if size + len(data) > PIPE_BUF and piece:
                self._write(b"".join(piece))
                piece, size = [], 0
            piece.append(data)
            size += len(data)
        if piece:
            self._write(b"".join(piece))


class JsonLines:
    """A request as one JSON object in ASCII."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def __call__(self, exchange: Exchange) -> str:
        peer = exchange.peer.address
        first = exchange.first_byte
        return (
            f'{{"ts":"{self._time(exchange.started + exchange.seconds)}","level":"info","event":"request",'
            f'"request":{quoted(exchange.id)},"peer":{quoted("unix" if peer is None else str(peer))},'
            f'"method":{quoted(exchange.method)},"target":{quoted(logged_target(exchange.target))},'
            f'"status":{exchange.status},"outcome":"{exchange.outcome}","upstream":{quoted(exchange.upstream)},'
            f'"bytes":{exchange.sent},"seconds":{exchange.seconds:.6f},'
            f'"first_byte":{"null" if first is None else f"{first:.6f}"},'
            f'"user_agent":{quoted(exchange.user_agent)},"aborted":"{exchange.aborted}"'
            + (f',"shared":{quoted(exchange.shared)}' if exchange.shared else "")
            + (f',"trace":"{exchange.trace}"}}' if exchange.trace else "}")
        )

    def _time(self, moment: float) -> str:
        """RFC 3339 in UTC, to the millisecond; the calendar is asked once a second."""
        second = int(moment)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{int((moment - second) * 1000):03d}Z"


def console_line(exchange: Exchange) -> str:
    """A request for a person: local time, status, what was asked, how it went."""
    words = (
        time.strftime("%H:%M:%S", time.localtime(exchange.started + exchange.seconds)),
        str(exchange.status),
        printable(exchange.method),
        printable(logged_target(exchange.target)),
        exchange.outcome,
        printable(exchange.upstream),
        f"{exchange.sent} B",
        f"{exchange.seconds * 1000:.1f} ms",
        printable(str(exchange.peer.address or "unix")),
        printable(exchange.user_agent),
        f"cut:{exchange.aborted}" if exchange.aborted else "",
        printable(exchange.id),
        f"shared:{exchange.shared}" if exchange.shared else "",
        f"trace:{exchange.trace}" if exchange.trace else "",
    )
    return " ".join(word for word in words if word)


def logged_target(target: str) -> str:
    """The request target without the values of unknown parameters."""
    path, mark, query = target.partition("?")
    if not mark:
        return target
    return path + "?" + "&".join(map(_logged_parameter, query.split("&")))


def _logged_parameter(parameter: str) -> str:
    name, mark, _ = parameter.partition("=")
    if name in LOGGED_QUERY or not parameter:
        return parameter
    return f"{name}=..." if mark else "..."
