"""A BlobView of an object: streamed through, read ahead while the client is being sent."""

from __future__ import annotations

import trio

from cacheproxy.core.blob import Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.flow import AHEAD, Batch, Flow, Get

BATCH = 1 << 20
"""Bytes that are read in one go of a thread: more were not cheaper."""
LEAST_BATCH = 256 << 10
BATCHES = AHEAD + 2
"""Of one reader, at most: the one that is being sent, those that wait, the one that is being read."""
MEMORY = 512 << 20
"""Bytes that all readers together may take: beyond 170 of them their batches become smaller."""


class ObjectBlob:
    """Spans are read forward; one that starts elsewhere is another GET. Reads are tasks of `nursery`.

    `all_open` has the views that are open, this one among them.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        get: Get,
        nursery: trio.Nursery,
        threads: trio.CapacityLimiter,
        all_open: set[ObjectBlob],
    ) -> None:
        self.digest = digest
        self.size = size
        self._get = get
        self._nursery = nursery
        self._threads = threads
        self._flow: Flow | None = None
        self._here: Batch = ()
        self._start = self._stop = 0
        """Of what is here."""
        self._all_open = all_open
        all_open.add(self)

    async def available(self, offset: int, span: Span) -> int:
        """The rest of the batch that holds `offset`.

        Raises BlobMissing, StoreUnreachable as reading did, BlobBroken at a shutdown; the same call may be
        made again.
        """
        if not self._has(offset):
            await self._advance(offset, span.stop)
        return min(self._stop, span.stop) - offset

    def fileno(self) -> int | None:
        return None

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> memoryview:
        """Not copied. Raises as `available` does."""
        if not self._has(offset):
            await self.available(offset, Span(offset, min(offset + count, self.size), bounded=True))
        while offset >= self._start + len(self._here[0]):
            self._start += len(self._here[0])
            self._here = self._here[1:]
        at = offset - self._start
        return memoryview(self._here[0])[at : at + count]

    def close(self) -> None:
        """Once or more often. A read that is under way is given up."""
        self._all_open.discard(self)
        self._leave()

    def _has(self, offset: int) -> bool:
        return self._start <= offset < self._stop

    async def _advance(self, offset: int, stop: int) -> None:
        if self._flow is None or self._flow.taken != offset or self._flow.stop <= offset:
            self._leave()
            self._flow = Flow(offset, stop, self._get, self._threads, self._share)
            self._nursery.start_soon(self._flow.run)
        try:
            self._here = await self._flow.take()
        except Exception:
            self._leave()
            raise
        self._start, self._stop = offset, self._flow.taken

    def _leave(self) -> None:
        if self._flow is not None:
            self._flow.end()
        self._flow = None
        self._here = ()
        self._start = self._stop = 0

    def _share(self) -> int:
        """The bytes of a batch."""
        return min(BATCH, max(LEAST_BATCH, MEMORY // (BATCHES * max(1, len(self._all_open)))))
