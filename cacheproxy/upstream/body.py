"""Bodies, read as they come: each wait limited, nothing decoded, nothing larger than allowed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream import metrics
from cacheproxy.upstream.exchange import failure

RATE_SECONDS = 60.0
"""Of waiting, over which the minimum rate is measured."""


class MinimumRate:
    """Whether a peer sends fast enough. Only waiting for it counts: a slow reader is not its fault."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._waited = 0.0
        self._received = 0

    def kept(self, seconds: float, count: int) -> bool:
        """`count` more bytes came after `seconds` of waiting."""
        self._waited += seconds
        self._received += count
        if self._waited < RATE_SECONDS:
            return True
        kept = self._received >= self._rate * self._waited
        self._waited, self._received = 0.0, 0
        return kept


class Chunks:
    """A response's body, in the pieces it arrives in. Not a generator: it may be left half-way."""

    def __init__(self, response: httpx.Response, host: str, upstream: str, stall: float, rate: float) -> None:
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        self._parts = aiter(stream)
        self._host = host
        self._upstream = upstream
        self._stall = stall
        self._rate = MinimumRate(rate)
        self._bytes = metrics.BYTES.labels(upstream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Raises UpstreamError: TIMEOUT for a stall or a drip, CONNECT for a body that breaks off."""
        began = trio.current_time()
        chunk = await self._next()
        self._bytes.inc(len(chunk))
        if not self._rate.kept(trio.current_time() - began, len(chunk)):
            raise UpstreamError(Cause.TIMEOUT, f"{self._host} sends too slowly", self._upstream)
        return chunk

    async def _next(self) -> bytes:
        with trio.move_on_after(self._stall):
            try:
                return await anext(self._parts)
            except httpx.HTTPError as error:
                raise failure(error, self._host, self._upstream) from error
        what = f"{self._host} sent nothing for {self._stall:.0f} s"
        raise UpstreamError(Cause.TIMEOUT, what, self._upstream)

    async def aclose(self) -> None:
        """Ours has nothing to close; the parts of other transports are generators."""
        if isinstance(self._parts, AsyncGenerator):
            await self._parts.aclose()


async def read_whole(chunks: AsyncIterator[bytes], limit: int, upstream: str) -> bytes:
    """Raises UpstreamError PROTOCOL for more than `limit` bytes, as soon as they are there."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise UpstreamError(Cause.PROTOCOL, f"sends more than {limit} bytes", upstream)
    return bytes(body)


def check_identity(response: httpx.Response, upstream: str) -> None:
    """We ask for bytes as they are; who encodes them all the same is not believed. Raises UpstreamError."""
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in {"", "identity"}:
        what = f"sends Content-Encoding {coding[:40]!r} where identity was asked for"
        raise UpstreamError(Cause.PROTOCOL, what, upstream, status=response.status_code)


def content_length(response: httpx.Response) -> int | None:
    value = response.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
