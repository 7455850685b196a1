"""Requests that are not of the plainest kind: heads by h11 behind the pre-filter, bodies by `framing`.

What follows a request on the wire goes back to whoever reads the next head, so that every head passes the
pre-filter. Answers are never written through h11.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11

from cacheproxy.edge import head, prefilter
from cacheproxy.edge.framing import Chunked, Counted
from cacheproxy.edge.message import BodyBroken, BodyTooLarge
from cacheproxy.edge.prefilter import Refusal
from cacheproxy.edge.wire import ClientGone, Phase, Wire

_JOINED = {"cookie": "; "}
"""How repeated fields are joined, where it is not ", "."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A well-formed head."""

    method: str
    target: str
    headers: dict[str, str]
    keep_alive: bool
    expects: bool
    """The client sends its body once it was told to go on."""

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
    current = event.http_version == b"1.1"
    return Parsed(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        headers,
        keep_alive=current and "close" not in tokens,
        expects=current and "expect" in headers,
    )


def _join(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = headers[name] + _JOINED.get(name, ", ") + value if name in headers else value
    return headers


class RequestBody:
    """The body of one request, read on demand. `rest`: the bytes that came with the head."""

    def __init__(self, parsed: Parsed, wire: Wire, rest: bytes) -> None:
        self._wire = wire
        self._declared = parsed.declared
        self._waits = parsed.expects and not rest
        """The client waits to be told to go on."""
        self._framing = Chunked() if parsed.declared is None else Counted(parsed.declared)
        self.leftover = rest
        """What came and was not given out: once the body is whole, the beginning of the next request."""

    @property
    def finished(self) -> bool:
        """The whole body was read."""
        return self._framing.whole

    def reusable(self, limit: int) -> bool:
        """Whether the connection can go on after an answer, with at most `limit` unread bytes to drain.

        A client that waits for "100 Continue" may or may not send its body after a final answer: nobody
        knows where the next request would begin. After trailers nobody goes on: what they say was dropped.
        """
        if self.finished:
            return not self._framing.trailers
        return not self._waits and (self._declared is None or self._declared <= limit)

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLarge over `limit` bytes, BodyBroken."""
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

    async def receive(self) -> bytes:
        """Some bytes of the body, as they come; empty at its end. Raises BodyBroken."""
        try:
            return await self._chunk()
        finally:
            self._wire.pause()

    async def drain(self, limit: int) -> bool:
        """Read on to the next request. False: it is not worth it, or not possible; the connection ends."""
        if self.finished or not self.reusable(limit):
            return self.finished and self.reusable(limit)
        try:
            await self.read(limit)
        except (BodyTooLarge, BodyBroken):
            return False
        return self.reusable(limit)

    async def _chunk(self) -> bytes:
        """Some bytes of the body; empty at its end. While the client is waited for, its rate is watched."""
        while True:
            part, self.leftover = self._framing.take(self.leftover)
            if part or self.finished:
                return part
            await self._receive()

    async def _receive(self) -> None:
        try:
            if self._waits:
                self._waits = False
                await self._wire.send(head.CONTINUE)
            self._wire.measure(Phase.RECEIVING)
            data = await self._wire.recv()
        except ClientGone as error:
            raise BodyBroken("the client went away before its body was whole") from error
        if not data:
            raise BodyBroken("the client ended before its body was whole")
        self.leftover += data
