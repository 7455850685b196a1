"""All fills of the process: one a digest, however many ask."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial as bind
from typing import Protocol

import structlog
import trio

from cacheproxy.core import trace
from cacheproxy.core.blob import BlobView
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import UpstreamError
from cacheproxy.registry import metrics, sharing
from cacheproxy.registry.fill import Fill, FillRules
from cacheproxy.registry.sharing import Begun
from cacheproxy.registry.space import Space
from cacheproxy.registry.transfer import Endpoint, Route, Source
from cacheproxy.registry.uncached import Uncached
from cacheproxy.store.partial import Partial

log = structlog.get_logger()

LIARS_KEPT = 1024
"""Digests for which it is remembered who sent wrong bytes."""

DISK_THREADS = 8
"""Threads that write, hash and sync for all fills together: a slow disk may hold so many, and nothing else
waits for them.
"""


class Shelf(Protocol):
    """Where fills leave what they bring: the content store and its rows."""

    def partial(self, digest: Digest, size: int) -> Partial:
        """Blocking. The file that a fill goes on from, empty or not."""
        ...

    async def keep(self, partial: Partial) -> bool:
        """Make a proven file a stored blob, in the durable order; False: there is one already.

        Raises OSError.
        """
        ...


class Room(Protocol):
    """Who makes room: eviction."""

    async def reserve(self, digest: Digest, size: int) -> bool:
        """Promise room for a blob; False: it has to be served uncached. No checkpoint when there is room."""
        ...

    def ran_out(self, size: int) -> None:
        """A write found the disk full."""
        ...


class Fills:
    def __init__(
        self, nursery: trio.Nursery, shelf: Shelf, rules: FillRules, space: Space, room: Room
    ) -> None:
        self._nursery = nursery
        """Owned by the application: fills outlive the clients that started them."""
        self._shelf = shelf
        self.rules = rules
        """Of fills that begin from now on."""
        self._space = space
        space.coming = self._coming
        self._room = room
        self._running: dict[Digest, Fill] = {}
        self._begun: dict[Digest, Begun] = {}
        """By whom the running ones were; but their spans are nobody's."""
        self._disk = trio.CapacityLimiter(DISK_THREADS)
        self._liars: dict[Digest, set[Endpoint]] = {}
        """Who had a part in bytes that were not the digest's: the next fill asks the others first."""
        self._unkept: dict[Digest, str] = {}
        """What was wrong with the disk, where it did not take a blob; want of room is nothing wrong."""

    async def join(self, digest: Digest, size: int, source: Source) -> tuple[BlobView, str]:
        """A view of a blob that is not stored, and the outcome: coalesced, miss, or bypass (uncached)."""
        while (followed := await self._follow(digest, size, source)) is None:
            try:
                room = await self._room.reserve(digest, size)
            except OSError as error:  # the disk cannot even say what is free
                log.warning("blob passes the store by", digest=digest, error=str(error))
                self._note(digest, str(error))
                return self.around(digest, size, source, "disk"), "bypass"
            if not room:
                return self.around(digest, size, source, "budget"), "bypass"
            if digest not in self._running:  # nobody was first while room was made
                return self._start(digest, size, source), "miss"
        return followed

    def _start(self, digest: Digest, size: int, source: Source) -> BlobView:
        route = Route(source, self._liars.get(digest, ()))
        fill = Fill(digest, size, route, self.rules, self._disk, self._detour)
        self._running[digest] = fill
        self._begun[digest] = sharing.begun(trace.apart("fill"))
        view = fill.join()
        self._nursery.start_soon(self._run, fill)
        return view

    async def _follow(self, digest: Digest, size: int, source: Source) -> tuple[BlobView, str] | None:
        """A view of the running fill, and the outcome; None: there is none."""
        while (fill := self._running.get(digest)) is not None:
            if fill.size != size:
                # One of two manifests lies about it, and only the bytes will tell which.
                return self.around(digest, size, source, "size"), "bypass"
            if not fill.ending:
                fill.route.add(source)
                self._begun[digest].join()
                return fill.join(), "coalesced"
            await fill.gone.wait()
        return None

    def around(self, digest: Digest, size: int, source: Source, reason: str) -> BlobView:
        """Straight from the upstream, for one reader; `reason` is counted."""
        metrics.UNCACHED.labels(reason).inc()
        return Uncached(digest, size, Route(source, self._liars.get(digest, ())), self._nursery)

    async def ended(self, digest: Digest) -> str:
        """Wait until no fill runs for it: a blob is kept a moment after its readers have all of it.

        Says what was wrong with the disk when it was not kept for that; "" where there was no room, too.
        """
        if (fill := self._running.get(digest)) is not None:
            await fill.gone.wait()
        return self._unkept.pop(digest, "")

    def _note(self, digest: Digest, trouble: str) -> None:
        while len(self._unkept) >= LIARS_KEPT:
            del self._unkept[next(iter(self._unkept))]
        self._unkept[digest] = trouble

    def __iter__(self) -> Iterator[Fill]:
        return iter(list(self._running.values()))

    def held(self, digest: Digest) -> int | None:
        """Bytes that a running fill has; None: none runs for the digest."""
        fill = self._running.get(digest)
        if fill is None:
            return None
        return 0 if fill.file is None else fill.file.held.total

    def _coming(self) -> int:
        return sum(fill.size - (self.held(fill.digest) or 0) for fill in self._running.values())

    def _distrust(self, fill: Fill) -> None:
        while len(self._liars) >= LIARS_KEPT:
            del self._liars[next(iter(self._liars))]
        self._liars.setdefault(fill.digest, set()).update(fill.route.brought)

    async def _run(self, fill: Fill) -> None:
        metrics.FILLS_RUNNING.inc()
        try:
            with trace.within(self._begun[fill.digest].span):
                await fill.run(bind(self._shelf.partial, fill.digest, fill.size), self._commit)
                _tell(fill)
        finally:
            del self._running[fill.digest], self._begun[fill.digest]
            fill.gone.set()
            metrics.FILLS_RUNNING.dec()
            metrics.FILLS.labels(fill.result).inc()
            if fill.result != "stored":
                self._space.keep_part(fill.digest, fill.left_behind)
            if fill.lied:
                self._distrust(fill)
            if fill.starved:
                self._room.ran_out(fill.size)
            elif fill.result == "uncached":
                self._note(fill.digest, str(fill.failure))

    async def _commit(self, partial: Partial) -> None:
        with trace.step("store commit"):
            kept = await self._shelf.keep(partial)
        if kept:
            self._space.store(partial.digest, partial.size)
        else:
            self._space.keep_part(partial.digest, 0)

    def _detour(self, fill: Fill) -> BlobView:
        """The disk failed under a fill: each of its readers goes on alone, from where it is."""
        metrics.UNCACHED.labels("disk").inc()
        view = bind(Uncached, fill.digest, fill.size, fill.route, self._nursery)
        return view() if fill.file is None else view(fill.file.read_held, fill.file.held.covered_to(0))


def _tell(fill: Fill) -> None:
    """How it ended, to its trace."""
    span = trace.current.get()
    if span is not None:
        span.note(
            {"oci.digest": fill.digest, "cacheproxy.bytes": fill.size, "cacheproxy.result": fill.result}
        )
        if isinstance(fill.failure, UpstreamError):
            span.fail(fill.failure.cause)
        elif fill.result != "stored":
            span.fail(fill.result)
