"""Eviction: the bytes that were not read for the longest time make room; their rows stay, for the next pull.

Fills ask for room (`reserve`) and wait while others go. One task makes it, so that what a client starts does
not end with it; two more let go what an upstream's `keep` says, and empty the trash.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial as bind
from typing import Protocol

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.registry import metrics
from cacheproxy.registry.oldest import PAGE, Item, Oldest
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.space import Need, Space
from cacheproxy.registry.trash import BATCH, Files, Trash
from cacheproxy.store.disk import Unfinished
from cacheproxy.store.errors import StoreError, StoreFull
from cacheproxy.store.records import Records
from cacheproxy.store.rows import Evictable

log = structlog.get_logger()

CHECK_EVERY = 10.0
"""Seconds between two looks at the disk, which others fill too."""

ROWS = 1 << 20
"""Bytes that the database needs to note a batch, and some."""

GENTLE = 8
PAUSE = 0.03
"""Blobs of a batch that nobody waits for, and seconds between two: some milliseconds of work for each six or
seven times as many for pulls. A batch of BATCH would hold up those that come meanwhile for longer than one of
a hundred may be.
"""

PATIENCE = 10.0
"""Seconds that a pull waits for room; then it is served uncached."""

BARREN = 10.0
"""Seconds for which it is believed that no more could go: readers leave, but not with each request."""

START_LIMIT = 5.0
"""Seconds that the start waits for the trash: a store that hangs, or is far, keeps no door closed."""

TIDY_EVERY = 60.0
KEEP_EVERY = 3600.0
"""Seconds between two looks at the trash, and at what was not pulled for long."""

JUMP = 3600.0
"""Seconds that the wall clock may be off from the time that passed: past that it was set, and for that once
nothing is too old.
"""


class Bytes(Files, Protocol):
    """The content store, as far as eviction goes. What is not said not to block does."""

    def capacity(self) -> tuple[int, int]:
        """(free to us, total) bytes; does not block."""
        ...

    def partials(self) -> Iterable[Unfinished]:
        """Unfinished downloads, those that are running too."""
        ...

    def reap(self, older_than: float, now: float) -> Iterable[Digest]:
        """Remove unfinished downloads untouched for longer, but those in use; say which. Raises OSError."""
        ...


@dataclass(slots=True, eq=False)
class _Request:
    digest: Digest
    size: int
    refused: bool = False


class Eviction:
    def __init__(
        self,
        records: Records,
        content: Bytes,
        space: Space,
        recency: Recency,
        keep: Mapping[str, float],
        clock: Callable[[], float],
        *,
        shared: bool = False,
    ) -> None:
        """`keep`: seconds since the last pull, by upstream; those not in it keep for ever.

        `shared`: other nodes store and evict in the same rows.
        """
        self._records = records
        self._content = content
        self._space = space
        self._recency = recency
        self._keep = _passing(keep)
        self._clock = clock
        self._shared = shared
        self.trash = Trash(records, content, space, clock)
        """The one way out for bytes whose rows are gone: it counts what it could not unlink."""
        self._requests: list[_Request] = []
        self._stirred = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        """Where requests wait for room."""
        self._starved = 0
        """Bytes for which the disk had no room."""
        self._barren_until = -math.inf
        self._barren = 0
        """No more bytes than these could go, until then."""

    def limits_changed(self, keep: Mapping[str, float]) -> None:
        """So did those of the space, perhaps. What is beyond them goes soon, with no fill waiting."""
        self._keep = _passing(keep)
        self._barren_until = -math.inf
        self._stirred.set()

    # What fills ask.

    async def reserve(self, digest: Digest, size: int) -> bool:
        """Promise room for a blob, after others went if need be; False: it has to be served uncached.

        Returns without a checkpoint when there is room at once.
        """
        if self._space.reserve(digest, size):
            return True
        if self._hopeless(digest, size):
            return False
        request = _Request(digest, size)
        self._requests.append(request)
        self._stirred.set()
        try:
            with trio.move_on_after(PATIENCE):
                while not request.refused:
                    await self._changed.park()
                    if self._space.reserve(digest, size):
                        return True
        finally:
            self._requests.remove(request)
        return False

    def ran_out(self, size: int) -> None:
        """A write found the disk full, whatever was measured before: so many bytes are wanted."""
        self._starved = max(self._starved, size)
        self._stirred.set()

    def _hopeless(self, digest: Digest, size: int) -> bool:
        """Whatever went, it would not fit."""
        lacks = self._space.lacks(digest, size)
        barren = trio.current_time() < self._barren_until and lacks > self._barren
        return barren or lacks > self._space.evictable

    # Tasks.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever. Started once what a kill has left of evictions is gone, or takes too long."""
        metrics.CACHED_BYTES.set_function(lambda: self._space.used)
        metrics.BUDGET_BYTES.set_function(
            lambda: math.inf if self._space.budget is None else self._space.budget
        )
        with trio.move_on_after(START_LIMIT):
            await self._tolerant(self._tidy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._relieving)
            nursery.start_soon(self._tidying)
            nursery.start_soon(self._expiring)
            task_status.started()

    async def _relieving(self) -> None:
        while True:
            with trio.move_on_after(CHECK_EVERY):
                await self._stirred.wait()
            self._stirred = trio.Event()
            asked = list(self._requests)
            await self._tolerant(bind(self._relieve, asked))
            for request in asked:
                request.refused = True
            self._changed.unpark_all()

    async def _tidying(self) -> None:
        while True:
            await trio.sleep(TIDY_EVERY)
            await self._tolerant(self._tidy)

    async def _expiring(self) -> None:
        while True:
            wall, here = self._clock(), trio.current_time()
            await trio.sleep(KEEP_EVERY)
            jumped = (self._clock() - wall) - (trio.current_time() - here)
            if abs(jumped) > JUMP:
                log.warning("the clock was set: nothing is too old this time", seconds=round(jumped))
            else:
                await self._tolerant(self.expire)

    async def _tolerant(self, step: Callable[[], Awaitable[None]]) -> None:
        """Whatever fails is tried again at its time, and ends no daemon."""
        try:
            await step()
        except (OSError, StoreError) as error:
            log.warning("eviction failed", error=str(error))

    async def _tidy(self) -> None:
        await self.trash.empty()
        if self._shared:
            self._space.recount(await self._records.cached_bytes())
        oldest = await self._records.oldest_used()
        metrics.OLDEST_USED.set(0.0 if oldest is None else oldest)

    # Room.

    async def _relieve(self, asked: Sequence[_Request]) -> None:
        """Let go what is asked for, down to the low marks; nothing for what would not fit all the same."""
        starved, self._starved = self._starved, 0
        need = self._need(asked, starved)
        if not need.bytes:
            return
        await self._recency.write()  # the rows are then right about who comes first
        oldest = await self._oldest({request.digest for request in asked})
        await self._refuse(asked, oldest)
        need = self._need(asked, starved)
        left = need.bytes
        while left > 0 and (batch := await oldest.take(left, BATCH if self._requests else GENTLE)):
            left -= await self._let_go(batch, need.reason)
            self._changed.unpark_all()
            if left > 0 and not self._requests:
                await self._pause()

    async def _pause(self) -> None:
        """Until somebody asks for room, or for a while."""
        with trio.move_on_after(PAUSE):
            await self._stirred.wait()

    def _need(self, asked: Sequence[_Request], starved: int) -> Need:
        need = self._space.need({request.digest: request.size for request in asked if not request.refused})
        return Need(need.budget, max(need.min_free, starved))

    async def _refuse(self, asked: Sequence[_Request], oldest: Oldest) -> None:
        """Who asks for more than can go."""
        lacks = [self._space.lacks(request.digest, request.size) for request in asked]
        possible = await oldest.has(max(lacks, default=0))
        for request, lack in zip(asked, lacks, strict=True):
            if lack > possible:
                request.refused = True
                self._barren, self._barren_until = possible, trio.current_time() + BARREN
        self._changed.unpark_all()

    async def _oldest(self, keep: Set[Digest]) -> Oldest:
        """All that may go, but the rest of what is wanted itself."""
        found = await trio.to_thread.run_sync(lambda: list(self._content.partials()))
        parts = [part for part in found if self._space.unfinished(part.digest) and part.digest not in keep]
        return Oldest(self._records, self._recency.holds, parts)

    async def _let_go(self, batch: Sequence[Item], reason: str) -> int:
        """Says how many bytes went."""
        parts = [item for item in batch if isinstance(item, Unfinished)]
        blobs = [item for item in batch if isinstance(item, Evictable)]
        gone = await self._drop_parts(max(part.mtime for part in parts)) if parts else 0
        return gone + (await self.evict(blobs, reason) if blobs else 0)

    async def evict(self, blobs: Sequence[Evictable], reason: str) -> int:
        """Rows first, bytes later. Says how many bytes went: not those that were read or pinned meanwhile.

        Raises StoreError, OSError.
        """
        free = [blob for blob in blobs if not self._recency.holds(blob.digest)]
        gone = await self._forget_rows(free)
        size = sum(blob.size for blob in gone)
        metrics.EVICTED_BLOBS.labels(reason).inc(len(gone))
        metrics.EVICTED_BYTES.labels(reason).inc(size)
        await self.trash.unlink({blob.location: blob.size for blob in gone})
        return size

    async def _drop_parts(self, last: float) -> int:
        """Unfinished downloads that nobody is bringing, untouched since `last`."""
        now = math.nextafter(last, math.inf)
        digests = await trio.to_thread.run_sync(self._content.reap, 0.0, now)
        return self._space.drop_parts(digests)

    async def _forget_rows(self, blobs: Sequence[Evictable]) -> list[Evictable]:
        try:
            return await self._records.evict(blobs, self._clock())
        except StoreFull as error:
            log.warning("no room to note what is evicted", error=str(error))
            first = await self._make_room_for_rows()
        return first + await self._records.evict(blobs, self._clock())

    async def _make_room_for_rows(self) -> list[Evictable]:
        """They are on the same disk, as a rule, and it is full to the last byte.

        Unfinished downloads have no rows. After them some blobs, which are told, go before their rows do, in
        the transaction that changes these: a blob that a hosted repository got meanwhile is not among them.
        If there is no room for it all the same, whoever misses their bytes fetches them again.
        """
        freed = await self._drop_parts(math.inf)
        if freed >= ROWS or self._content.capacity()[0] >= ROWS:
            return []
        taken = await Oldest(self._records, self._recency.holds, ()).take(ROWS, BATCH)
        first = [blob for blob in taken if isinstance(blob, Evictable)]
        return await self._records.evict(first, self._clock(), self.trash.clear)

    # Age.

    async def expire(self) -> None:
        """Let go what was not pulled for as long as every upstream that has it keeps it.

        Raises StoreError, OSError.
        """
        if not self._keep:
            return
        now, after = self._clock(), None
        await self._recency.write()
        before = now - min(self._keep.values(), default=math.inf)
        while page := await self._records.evictable(PAGE, after, before):
            after = page[-1]
            old = [blob for blob in page if self._too_old(blob, now)]
            for start in range(0, len(old), GENTLE):
                await self.evict(old[start : start + GENTLE], "keep")
                await trio.sleep(PAUSE)

    def _too_old(self, blob: Evictable, now: float) -> bool:
        return all(now - blob.used > self._keep.get(name, math.inf) for name in blob.upstreams)


def _passing(keep: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in keep.items() if seconds < math.inf}
