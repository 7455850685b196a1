"""The file of a fill: bytes written as they come, hashed in order, made to last now and then.

Transfers put bytes at any offset; one task writes them in batches in a thread while the next batch comes in,
and advances the hash with the contiguous front. Bytes that came before their turn are hashed by reading them
back.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.intervals import Intervals
from cacheproxy.store.partial import Partial

QUEUE = 2 << 20
"""Bytes received but not yet written before the transfers wait: bounds memory, keeps the disk busy."""

HASH_STEP = 8 << 20
READ_BACK = 1 << 20
"""Bytes hashed per hop to a thread, and per read, when the hash has to catch up with ranged transfers."""

CHECKPOINT_SECONDS = 2.0
CHECKPOINT_BYTES = 8 << 20
"""A checkpoint (fdatasync, then journal) at most so often, and only for so much: what a kill can cost."""


class FillFile:
    def __init__(self, digest: Digest, size: int, partial: Partial, disk: trio.CapacityLimiter) -> None:
        self.partial = partial
        self.held = Intervals()
        """Bytes that are in the file."""
        for start, stop in partial.intervals:
            self.held.add(start, stop)
        self.grown = trio.lowlevel.ParkingLot()
        """Unparked when more bytes are held."""
        self._size = size
        self._disk = disk
        self._hasher = digest.hasher()
        self._hashed = 0
        """The hash covers [0, _hashed)."""
        self._queue: list[tuple[int, bytes]] = []
        self._queued = 0
        self._queue_filled = trio.Event()
        self._queue_taken = trio.lowlevel.ParkingLot()
        self._unsaved = 0
        """Bytes written since the last checkpoint."""

    @property
    def received(self) -> int:
        """Bytes that are in the file or wait for it."""
        return self.held.total + self._queued

    @property
    def hash_complete(self) -> bool:
        return self._hashed == self._size

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()

    async def put(self, offset: int, chunk: bytes) -> None:
        """Queue bytes for the file; returns when there is room for more."""
        self._queue.append((offset, chunk))
        self._queued += len(chunk)
        self._queue_filled.set()
        while self._queued >= QUEUE:
            await self._queue_taken.park()

    async def write(self) -> None:
        """Write what is put, until the hash covers the whole blob. Raises OSError."""
        while not self.hash_complete:
            wrote = await self._write_queued()
            front = self.held.covered_to(0)
            if front > self._hashed:
                stop = min(front, self._hashed + HASH_STEP)
                await trio.to_thread.run_sync(self._catch_up, stop, limiter=self._disk)
            elif not wrote:
                await self._queue_filled.wait()

    async def keep(self) -> None:
        """Checkpoint now and then, for ever. Raises OSError."""
        while True:
            await trio.sleep(CHECKPOINT_SECONDS)
            if self._unsaved >= CHECKPOINT_BYTES:
                self._unsaved = 0
                await trio.to_thread.run_sync(self.partial.checkpoint, list(self.held), limiter=self._disk)

    async def leave(self) -> None:
        """A last checkpoint: the next fill goes on from it, even while this file is still read.

        Raises OSError. Cancelled, a thread may go on with the file.
        """
        try:
            await self._write_queued(abandon_on_cancel=True)
        finally:
            await trio.to_thread.run_sync(
                self.partial.leave, list(self.held), limiter=self._disk, abandon_on_cancel=True
            )

    async def discard(self) -> None:
        """Nothing can be gone on from. Raises OSError. Cancelled, a thread may go on with the file."""
        await trio.to_thread.run_sync(self.partial.discard, limiter=self._disk, abandon_on_cancel=True)

    def read_held(self, offset: int, count: int) -> bytes:
        """Blocking. Bytes that are held at `offset`; raises OSError when there are none."""
        held = self.held.covered_to(offset) - offset
        if held <= 0:
            raise OSError(f"the partial file has nothing at byte {offset}")
        return self.partial.read(offset, min(count, held))

    async def _write_queued(self, *, abandon_on_cancel: bool = False) -> bool:
        """Whether there was anything to write."""
        batch, size = self._queue, self._queued
        if not batch:
            return False
        self._queue, self._queued, self._queue_filled = [], 0, trio.Event()
        self._queue_taken.unpark_all()
        batch.sort()
        try:
            await trio.to_thread.run_sync(
                self._store, batch, limiter=self._disk, abandon_on_cancel=abandon_on_cancel
            )
        except trio.Cancelled:  # before a thread had it: for `leave`
            self._queue[:0] = batch
            self._queued += size
            raise
        self._now_held(batch)
        return True

    def _now_held(self, batch: list[tuple[int, bytes]]) -> None:
        for offset, chunk in batch:
            self.held.add(offset, offset + len(chunk))
            self._unsaved += len(chunk)
        self.grown.unpark_all()

    def _store(self, batch: list[tuple[int, bytes]]) -> None:
        """In a thread: the batch into the file; the hash over it where it is next in line."""
        for offset, chunks in _runs(batch):
            self.partial.write(offset, chunks)
            if offset == self._hashed:
                for chunk in chunks:
                    self._hasher.update(chunk)
                    self._hashed += len(chunk)

    def _catch_up(self, stop: int) -> None:
        """In a thread: the hash over bytes that came before their turn, or before a restart."""
        while self._hashed < stop:
            chunk = self.partial.read(self._hashed, min(READ_BACK, stop - self._hashed))
            self._hasher.update(chunk)
            self._hashed += len(chunk)


def _runs(batch: list[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """The sorted batch as runs of neighbours: one vectored write each."""
    start, stop, chunks = -1, -1, list[bytes]()
    for offset, chunk in batch:
        if offset != stop and chunks:
            yield start, chunks
            chunks = []
        if not chunks:
            start = offset
        chunks.append(chunk)
        stop = offset + len(chunk)
    if chunks:
        yield start, chunks
