"""Requests that are not of the plainest kind: h11 behind the pre-filter.

One h11 connection reads one request, head and body; what follows on the wire goes back to whoever reads the
next head, so that every head passes the pre-filter. Answers are never written through h11.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11

from cacheproxy.edge import head, prefilter
from cacheproxy.edge.message import BodyBroken, BodyTooLarge
from cacheproxy.edge.prefilter import Refusal
from cacheproxy.edge.wire import Phase, Wire

_JOINED = {"cookie": "; "}
"""How repeated fields are joined, where it is not ", "."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A well-formed head, and the h11 connection that now expects its body."""

    method: str
    target: str
    headers: dict[str, str]
    keep_alive: bool
    reader: h11.Connection

    @property
    def declared(self) -> int | None:
        """Bytes of the body; None: it is chunked."""
        return None if "transfer-encoding" in self.headers else int(self.headers.get("content-length", "0"))


def parse(data: bytes) -> Parsed | Refusal:
    """Read one whole head, its blank line included and nothing behind it."""
    refusal = prefilter.check(data)
    if refusal is not None:
        return refusal
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=prefilter.MAX_HEAD)
    reader.receive_data(data)
    try:
        event = reader.next_event()
    except h11.RemoteProtocolError as error:
        return Refusal(error.error_status_hint, str(error))
    if not isinstance(event, h11.Request):
        return Refusal(400, "the request is malformed")
    headers = _join(event.headers)
    # Keep-alive before 1.1 is an extension that nobody needs who still speaks 1.0.
    tokens = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    keep_alive = event.http_version == b"1.1" and "close" not in tokens
    return Parsed(event.method.decode("ascii"), event.target.decode("ascii"), headers, keep_alive, reader)


def _join(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = headers[name] + _JOINED.get(name, ", ") + value if name in headers else value
    return headers


class RequestBody:
    """The body of one request, read on demand. `rest`: the bytes that came with the head."""

    def __init__(self, parsed: Parsed, wire: Wire, rest: bytes) -> None:
        self._reader = parsed.reader
        self._wire = wire
        self._declared = parsed.declared
        self._continued = False
        self._window = b""
        self._clean = True
        self.finished = False
        """The whole body was read."""
        if rest:  # nothing at all would mean to h11 that the client has ended
            self._feed(rest)
        if self._declared == 0:
            self._event()

    @property
    def leftover(self) -> bytes:
        """Of the next request, once this one is finished."""
        return self._reader.trailing_data[0]

    def reusable(self, limit: int) -> bool:
        """Whether the connection can go on after an answer, with at most `limit` unread bytes to drain.

        A client that waits for "100 Continue" may or may not send its body after a final answer: nobody
        knows where the next request would begin.
        """
        if self.finished:
            return self._clean
        waits = self._reader.they_are_waiting_for_100_continue and not self._continued
        return not waits and (self._declared is None or self._declared <= limit)

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLarge over `limit` bytes, BodyBroken, ClientGone."""
        if self._declared is not None and self._declared > limit:
            raise BodyTooLarge
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await self._chunk():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge
        finally:
            self._wire.wait()
        return b"".join(chunks)

    async def drain(self, limit: int) -> bool:
        """Read on to the next request. False: it is not worth it, or not possible; the connection ends."""
        if self.finished or not self.reusable(limit):
            return self.finished and self._clean
        try:
            await self.read(limit)
        except (BodyTooLarge, BodyBroken):
            return False
        return self._clean

    async def _chunk(self) -> bytes:
        """Some bytes of the body; empty at its end. While the client is waited for, its rate is watched."""
        while not self.finished:
            event = self._event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if event is h11.NEED_DATA:
                await self._receive()
        return b""

    async def _receive(self) -> None:
        if self._reader.they_are_waiting_for_100_continue and not self._continued:
            self._continued = True
            await self._wire.send(head.CONTINUE)
        self._wire.measure(Phase.RECEIVING)
        self._feed(await self._wire.recv())

    def _feed(self, data: bytes) -> None:
        self._window = (self._window + data)[-len(data) - len(prefilter.END) :]
        self._reader.receive_data(data)

    def _event(self) -> object:
        try:
            event = self._reader.next_event()
        except h11.RemoteProtocolError as error:
            raise BodyBroken(str(error)) from error
        if isinstance(event, h11.EndOfMessage):
            self._end(event)
        elif (
            event is h11.NEED_DATA and self._declared is None and b"\n" in self.leftover.replace(b"\r\n", b"")
        ):
            raise BodyBroken("a line of the chunked body ends without CRLF")
        return event

    def _end(self, event: h11.EndOfMessage) -> None:
        """The body is whole. A chunked one must end in CRLF CRLF, which h11 does not insist on.

        Trailers are dropped, and since their lines were h11's alone to judge, the connection is not used
        again.
        """
        self.finished = True
        if self._declared is None:
            consumed = self._window.removesuffix(self.leftover) if self.leftover else self._window
            if not consumed.endswith(prefilter.END):
                raise BodyBroken("the chunked body ends without CRLF")
            self._clean = not event.headers
