"""The collection: what hosted repositories have lost the last reason to keep goes, in small batches.

Every minute what is due is looked at again (`store/collection.py`), one node at a time. Pushes go on beside
it: what they need is decided in the transactions. It rather stops than removes what it may be wrong about:
after a failure, when the clock was set, and when more would go at once than anybody deletes by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from cacheproxy.core.errors import OCIError
from cacheproxy.registry import metrics
from cacheproxy.registry.push import GRACE
from cacheproxy.registry.space import Space
from cacheproxy.store.collection import Backlog, Collection, Swept
from cacheproxy.store.errors import StoreError
from cacheproxy.store.records import Records

log = structlog.get_logger()

EVERY = 60.0
"""Seconds between two passes."""

BATCH = 16
"""Items of one transaction: a few milliseconds that a push may have to wait."""

PAUSE = 0.05
"""Seconds between two batches: most of the database is left to pushes."""

JUMP = 3600.0
"""Seconds that the wall clock may be off from the time that passed: past that it was set, and things seem to
be older than they are."""

LEASE = 300.0
"""Seconds after which another node may collect, if the one that does is not heard of."""

SHARE = 0.2
MOST = 1000
"""The brake: more than this share of what is hosted, and more items than these, do not go unasked."""

REMEMBERED = 16
"""Passes that somebody asked for."""

BY_ANOTHER = "another node is collecting"


@dataclass(slots=True)
class Pass:
    number: int = 0
    """0: nobody asked for it."""
    earnest: bool = True
    anyway: bool = False
    """Whatever the brake and the clock say."""
    running: bool = True
    swept: Swept = field(default_factory=Swept)
    stopped: str = ""
    """Why it did not go on."""


@dataclass(frozen=True, slots=True)
class State:
    backlog: Backlog
    stopped: str
    """Why the last pass did not go on; "": it did."""


class Collector:
    def __init__(
        self,
        collection: Collection,
        records: Records,
        space: Space,
        changed: Callable[[], None],
        clock: Callable[[], float],
        name: str,
        grace: float = GRACE,
    ) -> None:
        """`changed` is called when images have gone; `name` is this node's."""
        self._collection = collection
        self._records = records
        self._space = space
        self._changed = changed
        self._clock = clock
        self._name = name
        self._grace = grace
        self._asked: dict[int, Pass] = {}
        self._wishes: list[Pass] = []
        self._stirred = trio.Event()
        self._backlog = Backlog(0, 0.0)
        self._stopped = ""
        self._looked_at = (math.nan, math.nan)
        """The wall clock and our own, at the last pass."""
        self._wait_until = -math.inf
        """Things seem older than they are until then, by our own clock."""
        self._leased_until = -math.inf

    # What people ask.

    def ask(self, *, earnest: bool, anyway: bool) -> Pass:
        """Collect what is due now; not in `earnest`, only say what would go."""
        number = max(self._asked, default=0) + 1
        wish = self._asked[number] = Pass(number, earnest, anyway)
        self._asked.pop(number - REMEMBERED, None)
        self._wishes.append(wish)
        self._stirred.set()
        return wish

    def progress(self, number: int) -> Pass:
        """Raises OCIError for a pass that nobody asked this daemon for of late."""
        found = self._asked.get(number)
        if found is None:
            raise OCIError("UNSUPPORTED", f"there is no collection {number} here (any more)", status=404)
        return found

    def state(self) -> State:
        """After the last look."""
        return State(self._backlog, self._stopped)

    # The task.

    async def run(self) -> None:
        """For ever."""
        self._looked_at = (self._clock(), trio.current_time())
        next_at = trio.current_time() + EVERY  # a start has other things to do
        while True:
            if self._wishes:
                await self._pass(self._wishes.pop(0))
            elif trio.current_time() >= next_at:
                await self._pass(Pass())
                next_at = trio.current_time() + EVERY
            else:
                self._stirred = trio.Event()
                with trio.move_on_at(next_at):
                    await self._stirred.wait()

    async def _pass(self, wish: Pass) -> None:
        """What fails is tried again at the next pass, and ends no daemon."""
        try:
            wish.stopped = await self._collect(wish)
        except (OSError, StoreError) as error:
            wish.stopped = str(error)
        wish.running = False
        if wish.earnest:
            self._say(wish)

    def _say(self, wish: Pass) -> None:
        swept = wish.swept
        if swept.blobs or swept.images:
            log.info("collected", images=swept.images, blobs=swept.blobs, bytes=swept.bytes)
        if wish.stopped and wish.stopped != self._stopped and wish.stopped != BY_ANOTHER:
            log.warning("collection stopped", reason=wish.stopped)
        self._stopped = wish.stopped
        metrics.COLLECTION_STOPPED.set(bool(wish.stopped) and wish.stopped != BY_ANOTHER)

    async def _collect(self, wish: Pass) -> str:
        """Why it stopped, or "". Raises StoreError, OSError."""
        now = self._look_at_clocks()
        await self._look(now)
        if not self._backlog.items:
            return ""
        if wish.earnest:
            reason = "" if wish.anyway else self._too_early() or await self._too_much(now)
            if reason or not await self._alone():
                return reason or BY_ANOTHER
        try:
            await self._sweep(wish, now)
        finally:
            if wish.swept.images and wish.earnest:
                self._changed()
        if wish.earnest:
            await self._collection.release(self._name)
            self._leased_until = -math.inf
            await self._look(now)
            self._space.recount(await self._records.cached_bytes())
        return ""

    async def _look(self, now: float) -> None:
        self._backlog = await self._collection.backlog(now)
        metrics.COLLECTION_OVERDUE.set(self._backlog.items)
        metrics.COLLECTION_OLDEST.set(self._backlog.oldest)

    async def _sweep(self, wish: Pass, now: float) -> None:
        items, swept = await self._collection.due(now, BATCH), wish.swept
        while items:
            more = await self._collection.sweep(items, now, self._grace, earnest=wish.earnest)
            swept.add(more)
            if wish.earnest:
                _count(more)
                if not await self._alone():
                    return  # it will go on with the rest
            await trio.sleep(PAUSE)
            items = await self._collection.due(now, BATCH, items[-1])

    async def _alone(self) -> bool:
        now = self._clock()
        if now + LEASE / 2 < self._leased_until:
            return True
        if await self._collection.lease(self._name, now, now + LEASE) is not None:
            return False
        self._leased_until = now + LEASE
        return True

    # The guards.

    def _look_at_clocks(self) -> float:
        """The wall clock's time: this pass goes by it, and not by what somebody sets it to meanwhile."""
        wall, here = self._clock(), trio.current_time()
        before, self._looked_at = self._looked_at, (wall, here)
        jumped = abs((wall - before[0]) - (here - before[1]))
        if jumped > JUMP:
            # After that long all that was promised before has had its time, whichever clock was right.
            self._wait_until = max(self._wait_until, here + min(jumped, self._grace))
            self._leased_until = -math.inf
        return wall

    def _too_early(self) -> str:
        left = self._wait_until - trio.current_time()
        return f"the clock was set: nothing is too old for {round(left / 60)} min more" if left > 0 else ""

    async def _too_much(self, now: float) -> str:
        if self._backlog.items <= MOST:
            return ""
        stock, doomed = await self._collection.stock(), await self._collection.doomed(now)
        much = doomed.blobs > MOST and doomed.bytes > SHARE * stock.bytes
        many = doomed.images > MOST and doomed.images > SHARE * stock.images
        if not much and not many:
            return ""
        return (
            f"{doomed.images} of {stock.images} images and {doomed.bytes} of {stock.bytes} bytes would go at"
            " once: look at `cacheproxy gc --dry-run`; if that is right, `cacheproxy gc --anyway`"
        )


def _count(swept: Swept) -> None:
    metrics.COLLECTED.labels("image").inc(swept.images)
    metrics.COLLECTED.labels("link").inc(swept.links)
    metrics.COLLECTED.labels("blob").inc(swept.blobs)
    metrics.COLLECTED_BYTES.inc(swept.bytes)
