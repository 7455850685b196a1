"""Around the store: a blob's bytes straight from the upstream, for one reader, kept nowhere.

What is served when the budget is reached or the disk is full: a cache never fails a pull because it is full.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial as bind

import structlog
import trio

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.fill import WITHHELD, WITHHELD_WHOLE, withheld_from
from cacheproxy.registry.plan import Claim
from cacheproxy.registry.transfer import GaveWay, Route, Stream, bring

log = structlog.get_logger()

WINDOW = WITHHELD_WHOLE + WITHHELD
"""Bytes received and not yet sent before the upstream is made to wait: no less than what can be withheld."""

READ_BACK = 1 << 20

PATIENCE = 5.0
"""Seconds that a connection may have waited for its reader while others wait in line for one: then it is
theirs, and the reader gets another once it has read most of what is here. So no number of slow readers keeps
fills from going on.
"""

LOOK_EVERY = 1.0
"""Seconds between two looks at the line."""


class Uncached:
    """A BlobView without a file. Reads of one span go forward; another span starts another request upstream.

    A response for all of the blob is proven like a fill's. One that starts in the middle can only be proven
    when `before(offset, count)` can read the bytes before it, of which the first `held` are here; else the
    client, who has them, is the one to judge.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        route: Route,
        nursery: trio.Nursery,
        before: Callable[[int, int], bytes] | None = None,
        held: int = 0,
    ) -> None:
        self.digest = digest
        self.size = size
        self._route = route
        self._nursery = nursery
        self._before = before
        self._held = held
        self._pump: _Pump | None = None

    async def available(self, offset: int, span: Span) -> int:
        """Raises UpstreamError; BlobBroken for a fault of ours."""
        pump = self._pump
        if pump is None or not pump.serves(offset, span):
            pump = self._restart(offset, span)
        return await pump.available(offset)

    def fileno(self) -> None:
        return None

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        assert self._pump is not None
        return await self._pump.take(offset, count)

    def close(self) -> None:
        if self._pump is not None:
            self._pump.stop()

    def _restart(self, offset: int, span: Span) -> _Pump:
        if self._pump is not None:
            self._pump.stop()
        provable = not span.bounded and offset <= self._held
        self._pump = _Pump(self, offset, span, self._before, provable=provable)
        self._nursery.start_soon(self._pump.run, self._route)
        return self._pump


class _Pump:
    """The task that brings one span, and the window between it and the reader."""

    def __init__(
        self,
        view: Uncached,
        offset: int,
        span: Span,
        before: Callable[[int, int], bytes] | None,
        *,
        provable: bool,
    ) -> None:
        self._digest, self._size, self._span = view.digest, view.size, span
        self._start = offset
        self._before = before
        self._hasher = view.digest.hasher() if provable else None
        self._window = bytearray()
        self._taken = offset
        """Offset of the window's first byte."""
        self._failure: Exception | None = None
        self._stream: Stream | None = None
        self._waited = 0.0
        """Seconds that the stream has waited for the reader."""
        self._changed = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    def serves(self, offset: int, span: Span) -> bool:
        return span == self._span and offset == self._taken

    def stop(self) -> None:
        self._scope.cancel()

    async def available(self, offset: int) -> int:
        while not (count := self._sendable()):
            if self._failure is not None:
                raise self._failure
            await self._changed.park()
        return count

    async def take(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        assert offset == self._taken
        data = bytes(self._window[: min(count, self._sendable())])
        del self._window[: len(data)]
        self._taken += len(data)
        self._changed.unpark_all()
        return data

    async def run(self, route: Route) -> None:
        with self._scope:
            try:
                await self._hash_before()
                await self._bring(Claim(self._start, self._span.stop), route)
                self._judge(route)
            except UpstreamError as error:
                self._failure = error
            except Exception as error:
                log.exception("blob cannot be passed through", digest=self._digest)
                self._failure = BlobBroken(f"the bytes of {self._digest} cannot be had: {error!r}")
        self._changed.unpark_all()

    async def _bring(self, claim: Claim, route: Route) -> None:
        deliver = bind(self._deliver, claim)
        while claim.left > 0:
            try:
                await bring(claim, self._size, self._digest, route, self._opened, deliver)
            except GaveWay:
                route.progress = True
                while len(self._window) > WINDOW // 2:
                    await self._changed.park()

    def _opened(self, stream: Stream) -> None:
        self._stream, self._waited = stream, 0.0

    async def _hash_before(self) -> None:
        at = 0
        while self._hasher is not None and at < self._start:
            assert self._before is not None
            chunk = await trio.to_thread.run_sync(self._before, at, min(READ_BACK, self._start - at))
            self._hasher.update(chunk)
            at += len(chunk)

    async def _deliver(self, claim: Claim, chunk: bytes) -> None:
        claim.position += len(chunk)
        if self._hasher is not None:
            self._hasher.update(chunk)
        self._window += chunk
        self._changed.unpark_all()
        while claim.left > 0 and len(self._window) > WINDOW:
            await self._wait_for_reader()

    async def _wait_for_reader(self) -> None:
        """Raises GaveWay when others have a better use for the connection."""
        began = trio.current_time()
        with trio.move_on_after(LOOK_EVERY):
            await self._changed.park()
        self._waited += trio.current_time() - began
        stream = self._stream
        # Without ranges all that came would have to come again.
        if self._waited >= PATIENCE and stream is not None and stream.ranges and stream.wanted():
            raise GaveWay

    def _judge(self, route: Route) -> None:
        """Raises UpstreamError when what was hashed, if anything was, is not the digest's."""
        if self._hasher is None:
            return
        actual = self._hasher.hexdigest()
        if actual != self._digest.hex:
            what = f"sent bytes whose digest is {self._digest.algorithm}:{actual}, not {self._digest}"
            raise UpstreamError(Cause.PROTOCOL, what, route.current.source.upstream.name)
        self._hasher = None  # proven: nothing is withheld any more

    def _sendable(self) -> int:
        here = len(self._window)
        if self._hasher is None:
            return here
        return max(0, min(here, withheld_from(self._size) - self._taken))
