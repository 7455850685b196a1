"""The fill: one download of one blob, followed by any number of readers while it arrives.

A fill is a sparse file and the set of byte intervals that are in it. Transfers add intervals, readers wait
for them; a sequential download, a resumed one, several ranged ones side by side and a lazy puller's small
reads are all this code. The hash advances with the contiguous front, and what is unproven at the end is
withheld.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial as bind

import structlog
import trio

from cacheproxy.core.blob import BlobBroken, BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.fillfile import FillFile
from cacheproxy.registry.plan import Claim, Demand, Plan
from cacheproxy.registry.transfer import Route, Stream, bring
from cacheproxy.store.durable import OUT_OF_SPACE
from cacheproxy.store.partial import Partial

log = structlog.get_logger()

WITHHELD = 64 << 10
"""The tail of a whole response that waits for the proof of the digest (bytes)."""

WITHHELD_WHOLE = 1 << 20
"""Blobs up to this size (bytes) are sent only once they are proven."""

GRACE = 5.0
"""Seconds a fill that all readers left goes on: a client that retries, or reads in pieces, comes back."""

COMMIT_LIMIT = 60.0
CLEANUP_LIMIT = 10.0
"""Limits (seconds) of what is shielded: the commit, and the last checkpoint of an unfinished fill."""

COMMIT_RATE = 1 << 20
"""Bytes a second of a commit that has to send the blob away: as much longer it may take."""


def withheld_from(size: int) -> int:
    """Where the tail begins that a whole response gets only after the proof: everything, for a small blob."""
    return 0 if size <= WITHHELD_WHOLE else size - WITHHELD


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
        self.file: FillFile | None = None
        self.proven = False
        self.failure: Exception | None = None
        self.lied = False
        """The bytes that came were not the digest's."""
        self.starved = False
        """The disk, or the database, had no room."""
        self.result = "abandoned"
        """stored, unkept (proven but not stored), uncached (the disk failed), failed, abandoned."""
        self.ending = False
        self.gone = trio.Event()
        """The run is over: another may begin."""
        self._file_left = False
        """No thread of the run uses the file any more: its descriptor may be closed."""
        self._rules = rules
        self._disk = disk
        self._plan = Plan(size, ())
        self._readers: set[FillView] = set()
        self._waiting: dict[FillView, Demand] = {}
        self._opening = trio.lowlevel.ParkingLot()
        """Where readers wait while there is no file yet."""
        self._stirred = trio.Event()
        self._ranges: bool | None = None
        """Whether the upstream does ranges; None: it has not answered yet."""
        self._most = rules.ranges
        """Transfers side by side: fewer once the upstream let some go on and failed another."""

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
        if self.file is None:
            return 0
        limit = span.stop
        if not (self.proven or span.bounded):
            limit = min(limit, withheld_from(self.size))
        return max(0, min(self.file.held.covered_to(offset), limit) - offset)

    async def wait(self, view: FillView, offset: int, span: Span) -> None:
        """Until more bytes are here, or the proof is, or the fill has ended."""
        self._waiting[view] = Demand(offset, span)
        self._stirred.set()
        try:
            await (self._opening if self.file is None else self.file.grown).park()
        finally:
            del self._waiting[view]

    def _tell_readers(self) -> None:
        self._opening.unpark_all()
        if self.file is not None:
            self.file.grown.unpark_all()

    # The run: fetch, prove, commit.

    async def run(self, open_partial: Callable[[], Partial], commit: Commit) -> None:
        """The outcome is in `result`, `proven` and `failure`.

        Raises nothing but cancellation: whatever goes wrong is the readers' to hear.
        """
        try:
            partial = await trio.to_thread.run_sync(open_partial, limiter=self._disk)
            self.file = FillFile(self.digest, self.size, partial, self._disk)
            self.route.etags = partial.etags
            await self._fetch(self.file)
            self._judge(self.file)
            with trio.fail_after(COMMIT_LIMIT + self.size / COMMIT_RATE, shield=True):
                await commit(partial)
                self.result = "stored"
        except* Abandoned:
            log.info("fill left unfinished", digest=self.digest, held=self.left_behind, size=self.size)
        except* UpstreamError as group:
            self.failure, self.result = _first(group), "failed"
        except* Exception as group:  # noqa: BLE001 - whatever is wrong with a file ends no daemon
            self._store_failed(_first(group))
        finally:
            await self._end()

    async def _fetch(self, file: FillFile) -> None:
        self._plan = Plan(self.size, file.held)
        if file.held.total:
            log.info("fill resumed", digest=self.digest, held=file.held.total, size=self.size)
        self._tell_readers()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._steer, file)
            nursery.start_soon(file.keep)
            await file.write()
            nursery.cancel_scope.cancel()

    def _judge(self, file: FillFile) -> None:
        """Raises UpstreamError when the bytes are not the digest's."""
        actual = file.hexdigest()
        if actual != self.digest.hex:
            self.lied = True
            what = f"sent bytes whose digest is {self.digest.algorithm}:{actual}, not {self.digest}"
            raise UpstreamError(Cause.PROTOCOL, what, self.route.current.source.upstream.name)
        self.proven, self.result = True, "unkept"
        self._tell_readers()

    async def _end(self) -> None:
        """Leave the file so that the next fill can go on from it, or not at all; tell everybody."""
        self.ending = True
        self._tell_readers()
        if self.file is not None and self.result != "stored":
            with trio.move_on_after(CLEANUP_LIMIT, shield=True) as limit:
                try:
                    await (self.file.leave() if self.left_behind else self.file.discard())
                except Exception as error:  # noqa: BLE001 - as in `run`: it ends no daemon
                    log.warning("partial file lost", digest=self.digest, error=repr(error))
            if limit.cancelled_caught:
                # Never closed, then: the thread would go on with whatever file gets the number next.
                log.error("partial file left to a disk that hangs", digest=self.digest)
                return
        self._file_left = True
        self._close_when_unused()

    @property
    def left_behind(self) -> int:
        """Bytes that the next fill can go on from: none after a disk's failure or a wrong digest."""
        if self.file is None or self.file.hash_complete or self.result not in ("abandoned", "failed"):
            return 0
        return self.file.received

    def _store_failed(self, error: BaseException) -> None:
        self.starved = isinstance(error, OSError) and error.errno in OUT_OF_SPACE
        if self.proven:  # the readers have all they need; only the keeping failed
            log.warning("blob not kept", digest=self.digest, error=repr(error))
            return
        log.warning("fill goes on uncached", digest=self.digest, error=repr(error))
        self.failure, self.result = StoreFailed(str(error)), "uncached"

    def _close_when_unused(self) -> None:
        if self._file_left and not self._readers and self.file is not None:
            self.file.partial.close()

    # Transfers: which run, and what they bring.

    async def _steer(self, file: FillFile) -> None:
        """Start transfers for what is wanted; end the fill when nobody wants it."""
        async with trio.open_nursery() as transfers:
            while True:
                self._stirred = trio.Event()
                while (claim := self._claim(file)) is not None:
                    transfers.start_soon(self._transfer, file, claim)
                with trio.move_on_after(math.inf if self._wanted(file) else GRACE) as patience:
                    await self._stirred.wait()
                if patience.cancelled_caught and not self._wanted(file):
                    self.ending = True  # who comes now waits for the next fill
                    raise Abandoned

    def _wanted(self, file: FillFile) -> bool:
        return bool(self._readers) or self._finishing(file)

    def _finishing(self, file: FillFile) -> bool:
        """Enough is here to fetch the rest for its own sake."""
        return file.held.total >= self._rules.finish_share * self.size

    def _claim(self, file: FillFile) -> Claim | None:
        busy = len(self._plan.claims)
        if self._ranges is None and busy:
            return None  # the first answer tells whether there is any point in a second request
        if self._ranges is False:  # whatever is asked for, all of it comes, from the start
            return None if busy else self._plan.next((), whole=True, piece=None, split=False)
        whole = any(view.whole for view in self._readers) or (not self._readers and self._finishing(file))
        demands = list(self._waiting.values())
        if self._rules.parallel_from is not None and self.size >= self._rules.parallel_from:
            if busy >= self._most:
                return None
            return self._plan.next(demands, whole=whole, piece=self._rules.piece, split=False)
        if busy == 0:
            return self._plan.next(demands, whole=whole, piece=None, split=False)
        if busy == 1 and self._most > 1:  # a lazy reader far ahead of the one transfer gets one of its own
            bounded = [demand for demand in demands if demand.span.bounded]
            return self._plan.next(bounded, whole=False, piece=None, split=True)
        return None

    async def _transfer(self, file: FillFile, claim: Claim) -> None:
        async def deliver(chunk: bytes) -> None:
            offset = claim.position
            self._plan.arrived(claim, len(chunk))
            await file.put(offset, chunk)

        try:
            await bring(claim, self.size, self.digest, self.route, bind(self._opened, claim), deliver)
        except UpstreamError as error:
            others = len(self._plan.claims) - 1
            if not others:
                raise
            self._most = others
            log.info("fill goes on with fewer transfers", digest=self.digest, most=others, error=str(error))
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
        """Raises UpstreamError when the upstream failed for good, BlobBroken at a shutdown."""
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
        if self._detour is not None or self._fill.file is None:
            return None
        return self._fill.file.partial.fileno()

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes | memoryview:
        if self._detour is None:
            raise BlobBroken("a fill with a file is read through its descriptor")
        return await self._detour.read(offset, count)

    def close(self) -> None:
        if self._detour is not None:
            self._detour.close()
        self._fill.leave(self)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """One of the exceptions that ended a nursery: transfers that fail together fail for one reason."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an empty exception group")
