"""HTTP/1.1 on one accepted connection, small and frank: it can do what no decent server would."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios

import trio

from tests.origin.plan import End, Framing, Plan, Source
from tests.origin.seen import Seen

MAX_HEAD = 64 << 10
_STEP = 1 << 20
# A paced body goes out in steps of 5 ms, and never makes up for more than 10 ms it did not use: smooth enough
# that a reader's own steps, not ours, are what a first-byte measurement sees.
_PACE_STEP = 0.005
_PACE_CREDIT = 0.010


class Closed(Exception):
    """The peer went away, or the answer ended the connection."""


class Wire:
    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self._socket = (stream if isinstance(stream, trio.SocketStream) else stream.transport_stream).socket
        self._plain = isinstance(stream, trio.SocketStream)
        self._buffer = bytearray()
        self._due = 0.0

    async def read_head(self) -> tuple[str, str, dict[str, str]]:
        """Method, target, headers (names in lower case). Raises Closed at the end of the connection."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Closed
            await self._receive()
        head = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return method, rest.rpartition(" ")[0], headers

    async def read_body(self, headers: dict[str, str]) -> bytes:
        count = int(headers.get("content-length", "0"))
        while len(self._buffer) < count:
            await self._receive()
        body = bytes(self._buffer[:count])
        del self._buffer[:count]
        return body

    async def answer(self, plan: Plan, seen: Seen) -> bool:
        """Send the plan, noting in `seen` what was sent; whether the connection may carry another request."""
        await trio.sleep(plan.delay)
        if plan.end and plan.end_after < 0:
            await self._end(plan.end)
        if plan.end and plan.halves_head:
            head = _head(plan)
            await self._send(head[: len(head) // 2])
            await self._end(plan.end)
        seen.status = plan.status
        await self._send(_head(plan))
        if seen.method == "HEAD" or plan.status == 304:
            return True
        length = plan.length if plan.end is None else min(plan.length, plan.end_after)
        await self._send_body(plan, length, seen)
        if plan.end:
            await self._end(plan.end)
        return plan.framing != Framing.CLOSE and plan.claim is None

    async def reset(self) -> None:
        """RST instead of FIN, once what was written has arrived (or a second has passed)."""
        with trio.move_on_after(1):
            while _unsent(self._socket.fileno()):
                await trio.sleep(0.001)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        raise Closed

    async def _end(self, end: End) -> None:
        if end is End.STALL:
            await self._wait_for_peer()
        elif end is End.RESET:
            await self.reset()
        raise Closed

    async def _wait_for_peer(self) -> None:
        while True:
            await self._receive()

    async def _send_body(self, plan: Plan, length: int, seen: Seen) -> None:
        offset, stop = plan.start, plan.start + length
        step = _STEP if plan.rate is None else max(int(plan.rate * _PACE_STEP), 1)
        while offset < stop:
            count = min(step, stop - offset)
            if plan.framing is Framing.CHUNKED:
                await self._send(b"%x\r\n%b\r\n" % (count, plan.body.read(offset, count)))
            else:
                count = await self._send_part(plan.body, offset, count)
            offset += count
            seen.sent += count
            if plan.rate is not None:
                await self._pace(count / plan.rate)
        if plan.framing is Framing.CHUNKED and length == plan.length:
            await self._send(b"0\r\n\r\n")

    async def _pace(self, seconds: float) -> None:
        self._due = max(self._due, trio.current_time() - _PACE_CREDIT) + seconds
        await trio.sleep_until(self._due)

    async def _send_part(self, body: Source, offset: int, count: int) -> int:
        if body.fd is None or not self._plain:
            data = body.read(offset, count)
            await self._send(data)
            return len(data)
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return os.sendfile(self._socket.fileno(), body.fd, offset, count)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise Closed from error

    async def _send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Closed from error

    async def _receive(self) -> None:
        try:
            data = await self.stream.receive_some(MAX_HEAD)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Closed from error
        if not data:
            raise Closed
        self._buffer += data


def _head(plan: Plan) -> bytes:
    headers = dict(plan.headers)
    if plan.framing is Framing.CHUNKED:
        headers["Transfer-Encoding"] = "chunked"
    elif plan.framing is Framing.LENGTH and plan.status != 304:
        headers["Content-Length"] = str(plan.length if plan.claim is None else plan.claim)
    if plan.framing is Framing.CLOSE or plan.claim is not None:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {plan.status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _unsent(descriptor: int) -> int:
    """Bytes in the socket's send queue that the peer has not acknowledged."""
    answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])
