"""The bytes of an object from one offset on: one GET, read ahead of whoever sends them on.

A GET stays open while its bytes are taken. It is let go when nobody takes any for a while, and when it fails
after it gave something; another one then goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial as bind
from typing import Protocol

import trio

from cacheproxy.core.blob import BlobBroken
from cacheproxy.store.errors import StoreUnreachable

AHEAD = 1
"""Batches that wait to be taken, beside the one that is being sent and the one that is being read."""

PATIENCE = 30.0
"""Seconds for one batch: 35 kB/s at least. A read that takes longer is left to its own time-outs."""

IDLE = 20.0
"""Seconds in which nobody takes a batch before the GET is let go. Stores give up on such readers, too, and
the connection is not held for a client that sleeps."""

Batch = Sequence[bytes]


class Reading(Protocol):
    """One GET under way (store.bucket.Reading)."""

    def read(self) -> bytes:
        """Blocking: the next bytes, at least one. Raises StoreUnreachable."""
        ...


Get = Callable[[int, int], Reading]
"""Blocking: a GET of the bytes [start, stop). Raises BlobMissing, StoreUnreachable."""


class Flow:
    """Brings the bytes [start, stop) while `run` runs, in a task of whoever made it. Reads are in threads."""

    def __init__(
        self, start: int, stop: int, get: Get, threads: trio.CapacityLimiter, least: Callable[[], int]
    ) -> None:
        """`least()` bytes make a batch that is worth the way to a thread and back."""
        self.taken = start
        """Where the next batch begins."""
        self.stop = stop
        self._at = start
        self._get = get
        self._threads = threads
        self._least = least
        self._reading: Reading | None = None
        self._failure: Exception = BlobBroken("the store was closed")
        self._into, self._batches = trio.open_memory_channel[Batch](AHEAD)
        self._scope = trio.CancelScope()

    async def take(self) -> Batch:
        """The next bytes, of which there must be some. Raises BlobMissing, StoreUnreachable, BlobBroken."""
        try:
            batch = await self._batches.receive()
        except trio.EndOfChannel:
            raise self._failure from None
        self.taken += _length(batch)
        return batch

    def end(self) -> None:
        """Give up what is being read; its thread ends with that."""
        self._scope.cancel()

    async def run(self) -> None:
        with self._scope, self._into:
            try:
                while self._at < self.stop:
                    await self._hand_over(await self._fetch())
            except Exception as error:  # noqa: BLE001 - whatever it is, who takes hears it
                self._failure = error
        self._reading = None

    async def _hand_over(self, batch: Batch) -> None:
        self._at += _length(batch)
        with trio.move_on_after(IDLE) as soon:
            await self._into.send(batch)
        if soon.cancelled_caught:
            self._reading = None
            await self._into.send(batch)

    async def _fetch(self) -> Batch:
        """That a GET fails which gave something, an hour ago perhaps, says little about the next one."""
        if self._reading is not None:
            try:
                return await self._read()
            except StoreUnreachable:
                self._reading = None
        return await self._read()

    async def _read(self) -> Batch:
        read = self._begin if self._reading is None else bind(self._go_on, self._reading)
        try:
            with trio.fail_after(PATIENCE):
                self._reading, batch = await trio.to_thread.run_sync(
                    read, limiter=self._threads, abandon_on_cancel=True
                )
        except trio.TooSlowError:
            raise StoreUnreachable(f"the object store gave nothing for {PATIENCE:.0f} s") from None
        return batch

    def _begin(self) -> tuple[Reading, Batch]:
        """The first bytes go as they come: somebody waits for them."""
        reading = self._get(self._at, self.stop)
        return reading, [reading.read()]

    def _go_on(self, reading: Reading) -> tuple[Reading, Batch]:
        batch: list[bytes] = []
        wanted = min(self._least(), self.stop - self._at)
        while wanted > 0:
            batch.append(reading.read())
            wanted -= len(batch[-1])
        return reading, batch


def _length(batch: Batch) -> int:
    return sum(map(len, batch))
