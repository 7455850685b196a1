"""The fill: one download of one blob, followed by any number of readers while it arrives.

A fill is a sparse file and the set of byte intervals that are in it. Transfers add intervals, readers wait for
them; a sequential download, a resumed one, several ranged ones side by side and a lazy puller's small reads are
all this code. The hash advances with the contiguous front, and what is unproven at the end is withheld.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial as bind

import structlog
import trio

from cacheproxy.core.blob import BlobBroken, BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.intervals import Intervals
from cacheproxy.registry.plan import Claim, Demand, Plan
from cacheproxy.registry.transfer import Route, Stream, bring
from cacheproxy.store.partial import Partial

log = structlog.get_logger()

WITHHELD = 64 << 10
"""The tail of a whole response that waits for the proof of the digest (bytes)."""

WITHHELD_WHOLE = 1 << 20
"""Blobs up to this size (bytes) are sent only once they are proven."""

QUEUE = 2 << 20
"""Bytes received but not yet written, per fill, before its transfers wait: bounds memory, keeps the disk busy."""

HASH_STEP = 8 << 20
READ_BACK = 1 << 20
"""Bytes hashed per hop to a thread, and per read, when the hash has to catch up with ranged transfers."""

CHECKPOINT_SECONDS = 2.0
CHECKPOINT_BYTES = 8 << 20
"""A checkpoint (fdatasync, then journal) at most so often, and only for so much: what a kill can cost."""

GRACE = 5.0
"""Seconds a fill that all readers left goes on: a client that retries, or reads in pieces, comes back."""

COMMIT_LIMIT = 60.0
CLEANUP_LIMIT = 10.0
"""Limits of what is shielded at the end of a fill (seconds): the commit, and the last checkpoint of an unfinished one."""


class StoreFailed(Exception):
    """The disk is full or failing: readers go on straight from the upstream, uncached."""


class Abandoned(Exception):
    """Nobody wants the blob any more, and too little of it is here to go on for its own sake."""


@dataclass(frozen=True, slots=True)
class FillRules:
    """How fills behave (section [cache] of the configuration)."""

    parallel_from: int | None = 64 << 20
    """Blobs of so many bytes come in several ranged transfers; None: never."""
    ranges: int = 4
    """Transfers of one blob side by side."""
    finish_share: float = 0.5
    """A fill that all readers left goes on once this share of it is here; inf: never."""
    piece: int = 16 << 20
    """Bytes of one ranged transfer: few requests, and yet the front advances with all of them."""


Commit = Callable[[Partial], Awaitable[None]]
"""Makes a proven partial file a stored blob, in the durable order."""


class Fill:
    """Run by `run` in a nursery that outlives every client; read through `join`."""

    def __init__(
        self,
        digest: Digest,
        size: int,
        route: Route,
        rules: FillRules,
        disk: trio.CapacityLimiter,
        detour: Callable[[Fill], BlobView],
    ) -> None:
        self.digest = digest
        self.size = size
        self.route = route
        self.detour = detour
        """The way around a disk that failed: a view straight from the upstream."""
        self.partial: Partial | None = None
        self.held = Intervals()
        """Bytes that are in the file."""
        self.proven = False
        self.failure: Exception | None = None
        self.result = "abandoned"
        """How the run ended: stored, unkept (proven, but not stored), uncached (the disk failed), failed, abandoned."""
        self.ending = False
        self.gone = trio.Event()
        """The run is over: another may begin."""
        self._rules = rules
        self._disk = disk
        self._plan = Plan(size, ())
        self._readers: set[FillView] = set()
        self._waiting: dict[FillView, Demand] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._stirred = trio.Event()
        self._queue: list[tuple[int, bytes]] = []
        self._queued = 0
        self._queue_filled = trio.Event()
        self._queue_emptied = trio.lowlevel.ParkingLot()
        self._unsaved = 0
        """Bytes written since the last checkpoint."""
        self._hasher = digest.hasher()
        self._hashed = 0
        """The hash covers [0, _hashed)."""
        self._ranges: bool | None = None
        """Whether the upstream does ranges; None: it has not answered yet."""

    # Readers: what a view asks of its fill.

    def join(self) -> FillView:
        view = FillView(self)
        self._readers.add(view)
        return view

    def leave(self, view: FillView) -> None:
        self._readers.discard(view)
        self._stirred.set()
        self._close_when_unused()

    def ready(self, offset: int, span: Span) -> int:
        """How many bytes from `offset` may be sent for `span` now."""
        limit = span.stop
        if not (self.proven or span.bounded):
            limit = min(limit, 0 if self.size <= WITHHELD_WHOLE else self.size - WITHHELD)
        return max(0, min(self.held.covered_to(offset), limit) - offset)

    async def wait(self, view: FillView, offset: int, span: Span) -> None:
        """Until more bytes are here, or the proof is, or the fill has ended."""
        self._waiting[view] = Demand(offset, span)
        self._stirred.set()
        try:
            await self._arrived.park()
        finally:
            del self._waiting[view]

    # The run: fetch, prove, commit.

    async def run(self, open_partial: Callable[[], Partial], commit: Commit) -> None:
        """The outcome is in `proven` and `failure`; a fill that nobody wants any more ends with neither.

        Raises nothing but cancellation: whatever goes wrong is the readers' to hear.
        """
        try:
            self.partial = await trio.to_thread.run_sync(open_partial, limiter=self._disk)
            self._resume(self.partial)
            await self._fetch(self.partial)
            self._judge()
            self._arrived.unpark_all()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + COMMIT_LIMIT):
                await commit(self.partial)
                self.result = "stored"
        except* Abandoned:
            log.info("fill left unfinished", digest=self.digest, held=self.held.total, size=self.size)
        except* UpstreamError as group:
            self.failure, self.result = _first(group), "failed"
        except* OSError as group:
            self._store_failed(_first(group))
        finally:
            await self._end()

    def _resume(self, partial: Partial) -> None:
        for start, stop in partial.intervals:
            self.held.add(start, stop)
        self._plan = Plan(self.size, self.held)
        if self.held.total:
            log.info("fill resumed", digest=self.digest, held=self.held.total, size=self.size)
            self._arrived.unpark_all()

    async def _fetch(self, partial: Partial) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._steer)
            nursery.start_soon(self._keep, partial)
            await self._write(partial)
            nursery.cancel_scope.cancel()

    def _judge(self) -> None:
        """Raises UpstreamError when the bytes are not the digest's."""
        actual = self._hasher.hexdigest()
        if actual != self.digest.hex:
            what = f"sent bytes whose digest is {self.digest.algorithm}:{actual}, not {self.digest}"
            raise UpstreamError(Cause.PROTOCOL, what, self.route.current.source.upstream.name)
        self.proven = True

    async def _end(self) -> None:
        """Leave the file so that the next fill can go on from it, or not at all; tell everybody."""
        self.ending = True
        self._arrived.unpark_all()
        if self.partial is not None and self.result != "stored":
            resumable = self.left_behind > 0
            keep = bind(self.partial.checkpoint, list(self.held)) if resumable else self.partial.discard
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANUP_LIMIT):
                try:
                    await trio.to_thread.run_sync(keep, limiter=self._disk, abandon_on_cancel=True)
                except OSError as error:
                    log.warning("partial file lost", digest=self.digest, error=str(error))
        self._close_when_unused()

    @property
    def left_behind(self) -> int:
        """Bytes that the next fill can go on from: none after a disk's failure, or when the digest was wrong."""
        resumable = self.result in ("abandoned", "failed") and self._hashed < self.size
        return self.held.total if resumable else 0

    def _store_failed(self, error: BaseException) -> None:
        if self.proven:  # the readers have all they need; only the keeping failed
            self.result = "unkept"
            log.warning("blob not kept", digest=self.digest, error=str(error))
            return
        log.warning("fill goes on uncached", digest=self.digest, held=self.held.total, error=str(error))
        self.failure, self.result = StoreFailed(str(error)), "uncached"

    def _close_when_unused(self) -> None:
        if self.ending and not self._readers and self.partial is not None:
            self.partial.close()
            self.partial = None

    # Transfers: bytes in.

    async def _steer(self) -> None:
        """Start transfers for what is wanted; end the fill when nobody wants it."""
        async with trio.open_nursery() as transfers:
            while True:
                self._stirred = trio.Event()
                while (claim := self._claim()) is not None:
                    transfers.start_soon(self._transfer, claim)
                with trio.move_on_after(math.inf if self._wanted() else GRACE) as patience:
                    await self._stirred.wait()
                if patience.cancelled_caught and not self._wanted():
                    raise Abandoned

    def _wanted(self) -> bool:
        return bool(self._readers) or self._finishing()

    def _finishing(self) -> bool:
        """Enough is here to fetch the rest for its own sake."""
        return self.held.total >= self._rules.finish_share * self.size

    def _claim(self) -> Claim | None:
        if self._ranges is None and self._plan.claims:
            return None  # the first answer tells whether there is any point in a second request
        whole = any(view.whole for view in self._readers) or (not self._readers and self._finishing())
        if self._ranges is False:  # whatever is asked for, all of it comes, from the start
            return None if self._plan.claims else self._plan.next((), whole=True, piece=None, split=False)
        demands = list(self._waiting.values())
        threshold = self._rules.parallel_from
        if threshold is not None and self.size >= threshold:
            if len(self._plan.claims) >= self._rules.ranges:
                return None
            return self._plan.next(demands, whole=whole, piece=self._rules.piece, split=False)
        if len(self._plan.claims) == 0:
            return self._plan.next(demands, whole=whole, piece=None, split=False)
        if len(self._plan.claims) == 1:  # a lazy reader far ahead of the one transfer gets one of its own
            bounded = [demand for demand in demands if demand.span.bounded]
            return self._plan.next(bounded, whole=False, piece=None, split=True)
        return None

    async def _transfer(self, claim: Claim) -> None:
        try:
            opened, deliver = bind(self._opened, claim), bind(self._deliver, claim)
            await bring(claim, self.size, self.digest, self.route, opened, deliver)
        finally:
            self._plan.release(claim)
            self._stirred.set()

    def _opened(self, claim: Claim, stream: Stream) -> None:
        ranged = claim.position > 0 or claim.stop < self.size
        if stream.status != 206 and ranged:
            self._ranges = False
            self._plan.take_all(claim)
        elif self._ranges is None:
            self._ranges = stream.ranges
        self._stirred.set()

    async def _deliver(self, claim: Claim, chunk: bytes) -> None:
        self._queue.append((claim.position, chunk))
        self._queued += len(chunk)
        self._plan.arrived(claim, len(chunk))
        self._queue_filled.set()
        while self._queued >= QUEUE:
            await self._queue_emptied.park()

    # The file: bytes written, hashed, and made to last.

    async def _write(self, partial: Partial) -> None:
        """Write what comes in and advance the hash, until it covers the blob."""
        while self._hashed < self.size:
            batch, self._queue, self._queued = self._queue, [], 0
            self._queue_filled = trio.Event()
            self._queue_emptied.unpark_all()
            if batch:
                batch.sort()
                await trio.to_thread.run_sync(self._store, partial, batch, limiter=self._disk)
                self._now_held(batch)
            front = self.held.covered_to(0)
            if front > self._hashed:
                stop = min(front, self._hashed + HASH_STEP)
                await trio.to_thread.run_sync(self._catch_up, partial, stop, limiter=self._disk)
            elif not batch:
                await self._queue_filled.wait()

    def _store(self, partial: Partial, batch: list[tuple[int, bytes]]) -> None:
        """In a thread: the batch, sorted by offset, into the file; the hash over it where it is next in line."""
        for offset, chunks in _runs(batch):
            partial.write(offset, chunks)
            if offset == self._hashed:
                for chunk in chunks:
                    self._hasher.update(chunk)
                    self._hashed += len(chunk)

    def _catch_up(self, partial: Partial, stop: int) -> None:
        """In a thread: the hash over bytes that came in before their turn, or before a restart."""
        while self._hashed < stop:
            chunk = partial.read(self._hashed, min(READ_BACK, stop - self._hashed))
            self._hasher.update(chunk)
            self._hashed += len(chunk)

    def _now_held(self, batch: list[tuple[int, bytes]]) -> None:
        for offset, chunk in batch:
            self.held.add(offset, offset + len(chunk))
            self._unsaved += len(chunk)
        self._arrived.unpark_all()

    async def _keep(self, partial: Partial) -> None:
        while True:
            await trio.sleep(CHECKPOINT_SECONDS)
            if self._unsaved >= CHECKPOINT_BYTES:
                self._unsaved = 0
                await trio.to_thread.run_sync(partial.checkpoint, list(self.held), limiter=self._disk)


class FillView:
    """A BlobView of a fill, for one response."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._detour: BlobView | None = None
        self.whole = False
        """Its reader wants all of the blob, or all from some offset on."""

    @property
    def digest(self) -> Digest:
        return self._fill.digest

    @property
    def size(self) -> int:
        return self._fill.size

    async def available(self, offset: int, span: Span) -> int:
        """Raises UpstreamError when the upstream failed for good, BlobBroken when the fill was ended under us."""
        fill = self._fill
        self.whole |= not span.bounded
        while self._detour is None:
            if count := fill.ready(offset, span):
                return count
            if isinstance(fill.failure, StoreFailed):
                self._detour = fill.detour(fill)
            elif fill.failure is not None:
                raise fill.failure
            elif fill.ending:
                raise BlobBroken("the download was ended by a shutdown")
            else:
                await fill.wait(self, offset, span)
        return await self._detour.available(offset, span)

    def fileno(self) -> int | None:
        if self._detour is not None or self._fill.partial is None:
            return None
        return self._fill.partial.fileno()

    async def read(self, offset: int, count: int) -> bytes:
        if self._detour is None:
            raise BlobBroken("a fill with a file is read through its descriptor")
        return await self._detour.read(offset, count)

    def close(self) -> None:
        if self._detour is not None:
            self._detour.close()
        self._fill.leave(self)


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


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """One of the exceptions that ended a nursery: transfers that fail together fail for one reason."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an empty exception group")
