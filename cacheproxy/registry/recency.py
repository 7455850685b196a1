"""Which blobs are read, and when each was last: noted in memory, written down in batches.

A hit writes nothing. What a kill loses is the order of a few seconds' reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice

import structlog
import trio

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import StoreError

log = structlog.get_logger()

WRITE_EVERY = 10.0
"""Seconds between two writes: eviction thinks in hours, and one sync in so long costs nothing."""

BATCH = 256
"""Blobs a transaction: about a millisecond of the thread that all writes share."""

LAST_WRITE_LIMIT = 5.0
"""Seconds that a shutdown waits for the last write."""


class Recency:
    """`record` is `Records.record_used`; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        record: Callable[[Iterable[tuple[Digest, float]]], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._record = record
        self._clock = clock
        self._noted: dict[Digest, float] = {}
        """What is not written down yet."""
        self._readers: Counter[Digest] = Counter()

    def read(self, digest: Digest) -> None:
        """Note a read that goes past us: a client was told where the blob is."""
        self._noted[digest] = self._clock()

    def reading(self, view: BlobView) -> BlobView:
        """The view, with its blob noted as read now, and held until the view is closed."""
        self._noted[view.digest] = self._clock()
        self._readers[view.digest] += 1
        return ReadView(view, self._ended)

    def holds(self, digest: Digest) -> bool:
        """It is being read, or was read so lately that the rows do not tell yet."""
        return digest in self._readers or digest in self._noted

    async def run(self) -> None:
        """Write now and then, for ever; once more when cancelled."""
        try:
            while True:
                await trio.sleep(WRITE_EVERY)
                await self.write()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITE_LIMIT):
                await self.write()

    async def write(self) -> None:
        """Write down what is noted. What cannot be written stays noted, and is tried with the next."""
        left = dict(self._noted)
        while left:
            batch = {digest: left.pop(digest) for digest in list(islice(left, BATCH))}
            try:
                await self._record(batch.items())
            except (OSError, StoreError) as error:
                log.warning("times of reads not kept", blobs=len(self._noted), error=str(error))
                return
            for digest, used in batch.items():
                if self._noted.get(digest) == used:
                    del self._noted[digest]

    def _ended(self, digest: Digest) -> None:
        self._readers[digest] -= 1
        if not self._readers[digest]:
            del self._readers[digest]


class ReadView:
    """A BlobView that says when it is closed, for the first time."""

    def __init__(self, view: BlobView, ended: Callable[[Digest], None]) -> None:
        self._view = view
        self._ended = ended
        self._open = True

    @property
    def digest(self) -> Digest:
        return self._view.digest

    @property
    def size(self) -> int:
        return self._view.size

    async def available(self, offset: int, span: Span) -> int:
        """Raises what the view does."""
        return await self._view.available(offset, span)

    def fileno(self) -> int | None:
        return self._view.fileno()

    def failed(self, error: Exception) -> bool:
        return self._view.failed(error)

    async def read(self, offset: int, count: int) -> bytes | memoryview:
        return await self._view.read(offset, count)

    def close(self) -> None:
        self._view.close()
        if self._open:
            self._open = False
            self._ended(self.digest)
