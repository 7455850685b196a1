"""One client's socket: reads and writes that wait only when they must, and what the watchdog judges.

The socket is a plain non-blocking one. A request on the fast path then costs one wait for readability
(which is also the checkpoint), one recv and one send; trio's own socket objects would try each call before
they wait.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from enum import Enum, StrEnum
from typing import ClassVar

import trio

from cacheproxy.edge.limits import Limits
from cacheproxy.edge.message import ClientCertificate

READ = 16 * 1024
"""One read never takes more than the largest head."""
GULP = 256 * 1024
"""Of a request's body, though."""
STEP = 512 * 1024
"""One sendfile: so large that Python's share is small, so small (0.1 ms) that nobody waits for it."""
_LINGER_BYTES = 1024 * 1024
_RESET = struct.pack("ii", 1, 0)


class Phase(Enum):
    """What the connection waits for, hence by what the watchdog measures it."""

    HANDSHAKE = "the client's part of a TLS handshake, until `deadline`"
    HEADER = "a head, until `deadline`"
    IDLE = "the next request, until `deadline`"
    WAITING = "the application or the blob's source, as long as the client is there"
    RECEIVING = "a request's body, at a rate"
    SENDING = "a client that takes bytes, at a rate"
    LINGERING = "the client's end, until `deadline`"


class Verdict(StrEnum):
    """Why the watchdog cut a connection."""

    HANDSHAKE = "handshake"
    HEADER = "header"
    IDLE = "idle"
    SLOW = "slow"
    GONE = "client"
    LINGERED = "lingered"


class ClientGone(Exception):
    """The client reset the connection, or cannot be reached any more."""


class Wire:
    """A socket and its accounts. Whoever cancels `scope` ends the connection."""

    scheme: ClassVar = "http"
    """How the other side's URLs begin."""
    step: ClassVar = STEP
    """The most that one `sendfile` sends."""

    __slots__ = (
        *(
            "_answering",
            "_body_from",
            "_paused",
            "deadline",
            "fd",
            "first_sent",
            "mark",
            "mark_at",
            "phase",
            "received",
        ),
        *("certificate", "reset", "scope", "sent", "sock", "verdict"),
    )

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.scope = trio.CancelScope()
        self.phase = Phase.HEADER
        self.deadline = deadline
        """In trio's time: before it the watchdog does not look. 0: it looks at every tick."""
        self.mark = 0
        self.mark_at = 0.0
        """Bytes that had got through, and when: the begin of the window in which a rate is measured."""
        self.sent = 0
        self.received = 0
        """Bytes since the connection began: handed to the kernel, and taken from it."""
        self.first_sent: float | None = None
        """When the first bytes of this turn's answer were handed over."""
        self._answering = False
        self._body_from = 0
        self._paused: tuple[Phase, float] | None = None
        """The phase that was left for the time being, and when."""
        self.verdict: Verdict | None = None
        self.certificate: ClientCertificate | None = None
        """What the client showed in its handshake."""
        self.reset = False
        """Close with a reset: what was promised in this answer's head will not come."""

    async def open(self, limits: Limits) -> str | None:
        """Agree with the client on what is spoken. Words for the client when that is not to be: it hears them
        in plain HTTP. Raises ClientGone. Here there is nothing to agree on."""
        return None

    def begin_turn(self) -> None:
        self.first_sent = None
        self._answering = False
        self._paused = None

    def begin_answer(self, head: int) -> None:
        """The next `head` bytes are the final answer's status line and headers; its body follows."""
        self._answering = True
        self._body_from = self.sent + head

    @property
    def body_sent(self) -> int:
        return max(0, self.sent - self._body_from)

    def expect(self, phase: Phase, deadline: float) -> None:
        """Enter a phase that ends at a time."""
        self.phase = phase
        self.deadline = deadline

    def wait(self) -> None:
        """What comes next is not the client's doing."""
        self.phase = Phase.WAITING
        self.deadline = 0.0

    def pause(self) -> None:
        """As `wait`, within a phase that will go on: time that is not the client's does not count in it."""
        if self.phase is not Phase.WAITING:
            self._paused = (self.phase, trio.current_time())
            self.wait()

    def measure(self, phase: Phase) -> None:
        """Enter a phase that is judged by its rate, unless it goes on."""
        if self.phase is phase:
            return
        self.phase, paused, self._paused = phase, self._paused, None
        self.deadline = 0.0
        if paused is not None and paused[0] is phase:
            self.mark_at += trio.current_time() - paused[1]
        else:
            self.mark_at, self.mark = trio.current_time(), self.through()

    def through(self) -> int:
        """Bytes that the other side has acknowledged, or that came from it, as the phase goes.

        What sendfile hands over may sit in our own send buffer for minutes and then leave in one piece;
        only what is not in the queue any more tells a slow reader from a stalled one.
        """
        if self.phase is Phase.RECEIVING:
            return self.received
        try:
            return self.sent - int(struct.unpack("i", fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
        except OSError:
            return self.sent

    def cut(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.scope.cancel()

    async def recv(self) -> bytes:
        """At least one byte; empty when the client ended its side. Always a checkpoint."""
        size = GULP if self.phase is Phase.RECEIVING else READ
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone from error
            self.received += len(data)
            return data

    async def send(self, data: bytes | memoryview, more: bool = False) -> None:
        """All of it. `more`: the kernel may wait for what follows. A checkpoint only when it must wait."""
        flags = socket.MSG_MORE if more else 0
        rest = data
        while rest:
            try:
                count = self.sock.send(rest, flags)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                raise ClientGone from error
            if self.first_sent is None and self._answering:
                self.first_sent = trio.current_time()
            self.sent += count
            rest = memoryview(rest)[count:] if count < len(rest) else b""

    async def sendfile(self, source: int, offset: int, count: int) -> int:
        """Up to `count` bytes of the file: how many; 0 at its end. OSError: the file's own fault."""
        while True:
            try:
                sent = os.sendfile(self.fd, source, offset, count)
            except BlockingIOError:
                await self._writable()
            except (ConnectionError, TimeoutError) as error:
                raise ClientGone from error
            else:
                self.sent += sent
                return sent

    async def _writable(self) -> None:
        self.measure(Phase.SENDING)
        await trio.lowlevel.wait_writable(self.fd)

    async def linger(self, seconds: float) -> None:
        """End our side and wait for theirs: closing on unread bytes would reset our last answer away."""
        self.expect(Phase.LINGERING, trio.current_time() + seconds)
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ClientGone from error
        limit = self.received + _LINGER_BYTES
        while self.received < limit and await Wire.recv(self):  # as it comes: nobody looks at it
            pass

    def send_now(self, data: bytes) -> bool:
        """Best effort, without waiting: for the last word on a connection that is closed in any case."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def discard(self) -> None:
        """Read away what has come so far, without waiting."""
        try:
            self.sock.recv(READ)
        except OSError:
            return

    def close(self) -> None:
        if self.reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()
