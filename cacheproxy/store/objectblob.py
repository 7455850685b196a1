"""A BlobView of an object: streamed through, in steps that are read ahead while the client is being sent."""

from __future__ import annotations

from collections.abc import Callable

import trio

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest

FIRST_STEP = 1 << 20
LAST_STEP = 8 << 20
"""Bytes of a ranged read: each is a request, so few of them; doubled from the first, which is waited for.

One stream from SeaweedFS: 210 MB/s by steps of 2 MiB, 300 by 4, 390 by 8.
"""

LEAST_STEP = 256 << 10
MEMORY = 512 << 20
"""Bytes that the steps of all readers together may take: the more there are, the smaller are their steps."""

Read = Callable[[int, int], memoryview]
"""Blocking: all of the bytes [start, stop). Raises BlobMissing, StoreUnreachable."""


class _Step:
    """One ranged read, under way or done."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.data = memoryview(b"")
        self.error: Exception | None = BlobBroken("the store was closed")
        self.done = trio.Event()
        self.scope = trio.CancelScope()

    def has(self, offset: int) -> bool:
        return self.start <= offset < self.stop


class ObjectBlob:
    """Takes two steps of memory at most. Reads run in threads, as tasks of `nursery`.

    `all_open` has the views that are open, this one among them.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        read: Read,
        nursery: trio.Nursery,
        threads: trio.CapacityLimiter,
        all_open: set[ObjectBlob],
    ) -> None:
        self.digest = digest
        self.size = size
        self._read = read
        self._nursery = nursery
        self._threads = threads
        self._here: _Step | None = None
        self._ahead: _Step | None = None
        self._length = FIRST_STEP
        self._all_open = all_open
        all_open.add(self)

    async def available(self, offset: int, span: Span) -> int:
        """The rest of the step that holds `offset`.

        Raises BlobMissing, StoreUnreachable as reading did, BlobBroken at a shutdown; the same call may be
        made again.
        """
        step = self._step(offset, span.stop)
        await step.done.wait()
        if step.error is not None:
            self._here = None
            raise step.error
        if self._ahead is None and step.stop < span.stop:
            self._ahead = self._start(step.stop, span.stop)
        return min(step.stop, span.stop) - offset

    def fileno(self) -> int | None:
        return None

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        """Raises as `available` does."""
        if self._here is None or not self._here.has(offset):
            await self.available(offset, Span(offset, min(offset + count, self.size), bounded=True))
        assert self._here is not None
        at = offset - self._here.start
        return bytes(self._here.data[at : at + count])

    def close(self) -> None:
        """Once or more often. A read that is under way is given up; its thread ends with its request."""
        self._all_open.discard(self)
        for step in (self._here, self._ahead):
            if step is not None:
                step.scope.cancel()
        self._here = self._ahead = None

    def _step(self, offset: int, stop: int) -> _Step:
        if self._here is not None and self._here.has(offset):
            return self._here
        ahead, self._ahead = self._ahead, None
        if ahead is None or not ahead.has(offset):
            if ahead is not None:
                ahead.scope.cancel()
            ahead = self._start(offset, stop)
        self._here = ahead
        return ahead

    def _start(self, start: int, stop: int) -> _Step:
        share = max(LEAST_STEP, MEMORY // (2 * len(self._all_open)))
        step = _Step(start, min(start + min(self._length, share), stop))
        self._length = min(2 * self._length, LAST_STEP)
        self._nursery.start_soon(self._fetch, step)
        return step

    async def _fetch(self, step: _Step) -> None:
        try:
            with step.scope:
                step.data = await trio.to_thread.run_sync(
                    self._read, step.start, step.stop, limiter=self._threads, abandon_on_cancel=True
                )
                step.error = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader hears it
            step.error = error
        finally:
            step.done.set()
