"""HTTP/1.1 over one stream: a request, its response, the next request.

h11 reads heads and chunked bodies. Bodies with a Content-Length, which blobs and manifests have, are counted
here and passed on as they were read: 0.4 CPU s a GiB, where h11 takes 1.5.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import h11
import httpx
import trio

from cacheproxy.upstream.causes import BrokenOff, RecordBroken
from cacheproxy.upstream.wire import GULP, Stream

_MAX_HEAD = 64 * 1024
"""Bytes of a response's head. Registries send 1-3 KiB, presigned redirects up to 8; nginx stops at 8 by
default."""

_MAX_INTERIM = 16
"""1xx responses before the real one. One (103 Early Hints) is usual."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. None of them is a total: a body may take as long as it moves."""

    connect: float
    read: float
    """For a whole head, then for each next piece of the body."""
    write: float

    @classmethod
    def of(cls, request: httpx.Request) -> Timeouts:
        given: Mapping[str, float | None] = request.extensions.get("timeout", {})
        return cls(*(_seconds(given.get(name)) for name in ("connect", "read", "write")))


def _seconds(value: float | None) -> float:
    return math.inf if value is None else value


class Connection:
    """One stream and the exchange that is going on over it. Whoever holds it closes it; after any error only
    that."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, _MAX_HEAD)
        self._eof = False
        self._left: int | None = 0
        """Bytes of the body that are still to come; None while h11 alone knows where it ends."""
        self._surplus = b""
        """Received and not yet given out: the beginning of the body, or what came after its end."""
        self.answered = False
        """Some byte of this exchange's response has come in."""

    async def exchange(self, request: h11.Request, content: bytes, timeouts: Timeouts) -> h11.Response:
        """Send the request and wait for the response's head; the body follows by `part`."""
        self._http = h11.Connection(h11.CLIENT, _MAX_HEAD)
        self.answered = False
        with suppress(httpx.WriteError):  # a server that refuses early may have answered before it closed
            await self._send(request, content, timeouts.write)
        with _waiting(timeouts.read, httpx.ReadTimeout, httpx.ReadError):
            response = await self._head()
        self._left = _length(request.method, response)
        if self._left is not None:
            self._surplus = self._http.trailing_data[0]
        return response

    async def part(self, seconds: float) -> bytes:
        """The next bytes of the body, up to GULP, waiting at most `seconds` for them; b"" once it is
        whole."""
        if self._left is None:
            return await self._framed_part(seconds)
        if not self._left:
            return b""
        data = self._surplus or await self._receive(seconds)
        if not data:
            raise BrokenOff(f"the peer closed the connection with {self._left} bytes still to come")
        data, self._surplus = data[: self._left], data[self._left :]
        self._left -= len(data)
        return data

    def reusable(self) -> bool:
        """May another request follow? Only if this response is whole (what is here already counts) and
        nothing came after it: bytes beyond a response would be read as the answer to the next request."""
        self._settle()
        whole = self._left == 0 and not self._surplus and not self._eof
        return whole and self._http.our_state is h11.DONE and self.quiet()

    def quiet(self) -> bool:
        """Nothing has come in since, not even the end."""
        return self._stream.quiet()

    def close(self) -> None:
        self._stream.close()

    async def _send(self, request: h11.Request, content: bytes, seconds: float) -> None:
        try:
            pieces = [self._http.send(request)]
            if content:
                pieces.append(self._http.send(h11.Data(data=content)))
            pieces.append(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        with _waiting(seconds, httpx.WriteTimeout, httpx.WriteError):
            await self._stream.send(b"".join(piece for piece in pieces if piece))

    async def _head(self) -> h11.Response:
        interim = 0
        while interim <= _MAX_INTERIM:
            event = self._event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse):
                interim += 1
            else:
                self._feed(await self._stream.receive())
        raise httpx.RemoteProtocolError(f"more than {_MAX_INTERIM} interim responses")

    async def _framed_part(self, seconds: float) -> bytes:
        with _waiting(
            seconds, httpx.ReadTimeout, httpx.ReadError
        ):  # one limit: framing that drips is a stall
            while not (data := self._framed()) and self._left is None:
                self._feed(await self._stream.receive())
        return data

    def _framed(self) -> bytes:
        """What h11 makes of the bytes that are here, small chunks put together; notes the end of the body."""
        parts: list[bytes] = []
        size = 0
        while size < GULP:
            event = self._event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                size += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._left = 0
                self._surplus = self._http.trailing_data[0]
                break
            else:
                break
        return b"".join(parts)

    def _settle(self) -> None:
        """Skip the rest of a body that is here already: nobody reads the page that comes with a redirect."""
        if self._left is None:
            try:
                self._framed()
            except httpx.TransportError:
                return
        elif 0 < self._left <= len(self._surplus):
            self._surplus = self._surplus[self._left :]
            self._left = 0

    def _event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._eof:
                raise BrokenOff("the peer closed the connection before its response was whole") from error
            raise httpx.RemoteProtocolError(str(error)) from error

    def _feed(self, data: bytes) -> None:
        self._eof = not data
        self._http.receive_data(data)
        self.answered = self.answered or bool(data)

    async def _receive(self, seconds: float) -> bytes:
        with _waiting(seconds, httpx.ReadTimeout, httpx.ReadError):
            return await self._stream.receive()


def _length(method: bytes, response: h11.Response) -> int | None:
    """Bytes of the body (RFC 9112 section 6.3); None if it is chunked or ends with the connection."""
    if method == b"HEAD" or response.status_code in {204, 304}:
        return 0
    headers = dict(response.headers)
    if b"transfer-encoding" in headers or b"content-length" not in headers:
        return None
    return int(headers[b"content-length"])


@contextmanager
def _waiting(
    seconds: float, late: type[httpx.TimeoutException], broken: type[httpx.NetworkError]
) -> Iterator[None]:
    """Limit a wait, and turn what the stream raises into what it means."""
    try:
        if seconds == math.inf:  # whoever asks has a limit of his own, and a scope costs 5 µs a piece
            yield
        else:
            with trio.fail_after(seconds):
                yield
    except trio.TooSlowError:
        raise late(f"nothing within {seconds:g} s") from None
    except ssl.SSLError as error:
        raise RecordBroken(f"TLS: {error.reason or error}") from error
    except (OSError, trio.ClosedResourceError) as error:
        raise broken(str(error)) from error
