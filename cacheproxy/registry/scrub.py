"""Stored bytes are read again and hashed, those that were not for the longest time first.

Disks lose bits in silence; who only reads what is asked for finds out too late. What is wrong is quarantined,
and fetched again at once. Work is claimed by rows: it goes on after a restart, and several nodes share it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import Protocol

import structlog
import trio

from cacheproxy.core.digest import Digest, Hasher
from cacheproxy.core.errors import OCIError
from cacheproxy.core.routing import Routes
from cacheproxy.registry.prefetch import Prefetch
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreError
from cacheproxy.store.proofs import ASKED, Left, Proofs
from cacheproxy.store.rows import BlobRow

log = structlog.get_logger()

LOOK_EVERY = 600.0
"""Seconds between two looks whether anything is due."""

TIDY_EVERY = 3600.0
"""Seconds between two looks at what is in quarantine."""

STEP = 4 << 20
"""Bytes of one read: a few milliseconds of a disk, one request of a bucket."""

BATCH = 16
"""Blobs of one claim."""

PAUSE = 0.05
"""Seconds between two claims: of blobs that are small the rows are the work, and pulls write rows, too."""

CLAIM = 600.0
"""Seconds that a claim lasts beyond what its bytes take."""

IN_A_ROW = 8
"""Blobs that are not there or cannot be read, one after the other: it is the disk, or that it is not mounted,
and not them. Nothing more is condemned."""

ABSENT = frozenset({"missing", "unreadable"})

LAST_WRITE_LIMIT = 2.0
"""Seconds that a shutdown waits for what was proven to be written down."""

Refetch = Callable[[str, Digest], Awaitable[str]]
"""Bring a blob of a repository; why not, or "". Raises nothing but for cancellation."""


@dataclass(frozen=True, slots=True)
class ScrubRules:
    every: float
    """Seconds after which a proof is too old; inf: only what somebody asks for is read."""
    rate: float
    """Bytes a second."""


@dataclass(frozen=True, slots=True)
class Progress:
    running: bool
    asked: Left
    """What is left of what somebody wants proven now."""
    due: Left
    """The same, with what is due by its age."""
    checked: Left
    """Since the start of this daemon, by it."""
    damaged: int
    """Of those."""
    stopped: str
    """Why it does not go on before the next look; "": it does."""


class Bytes(Protocol):
    """What is asked of the content store."""

    def read_cold(self, location: str, size: int, start: int, stop: int) -> bytes | memoryview:
        """Blocking. Raises BlobMissing, BlobDamaged, OSError."""
        ...


class Scrub:
    def __init__(
        self,
        proofs: Proofs,
        content: Bytes,
        quarantine: Quarantine,
        rules: ScrubRules,
        clock: Callable[[], float],
        *,
        shared: bool = False,
    ) -> None:
        """`rules` and `refetch` are replaced by those of the configuration in force.

        `shared`: other nodes look at the same rows.
        """
        self._proofs = proofs
        self._content = content
        self._quarantine = quarantine
        self.rules = rules
        self.refetch: Refetch = _no_upstream
        self._clock = clock
        self._shared = shared
        self._thread = trio.CapacityLimiter(1)
        self._stirred = trio.Event()
        self._running = False
        self._stopped = ""
        self._checked = Left(0, 0)
        self._damaged = 0
        self._absent = 0
        """In a row."""
        self._tidy_at = -math.inf
        self._ahead = -math.inf
        """When the pace allows the next read."""

    # What people ask.

    async def ask(self, digests: Iterable[Digest] | None) -> Progress:
        """Prove these now, or all that is stored. Raises StoreError."""
        if digests is None:
            await self._proofs.want_all(self._clock())
        else:
            await self._proofs.want(digests)
        self._stopped = ""
        progress = await self.progress()
        self._stirred.set()
        return progress

    async def progress(self) -> Progress:
        """Raises StoreError."""
        asked, due = await self._proofs.left(ASKED), await self._proofs.left(self._before())
        return Progress(self._running, asked, due, self._checked, self._damaged, self._stopped)

    # The task.

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as healing:
            while True:
                self._stirred = trio.Event()
                await self._round(healing)
                with trio.move_on_after(LOOK_EVERY):
                    await self._stirred.wait()

    async def _round(self, healing: trio.Nursery) -> None:
        """All that is due. What fails is tried again at the next look, and ends no daemon."""
        self._running, self._absent = True, 0
        try:
            if trio.current_time() >= self._tidy_at:
                await self._quarantine.tidy()
                self._tidy_at = trio.current_time() + TIDY_EVERY
            while batch := await self._claim():
                await self._batch(batch, healing)
                await trio.sleep(PAUSE)
            self._stopped = ""
        except (OSError, StoreError) as error:
            self._stopped = str(error)
            log.warning("scrub stopped for a while", error=str(error))
        finally:
            self._running = False

    def _before(self) -> float:
        return max(self._clock() - self.rules.every, ASKED)

    async def _claim(self) -> list[BlobRow]:
        now = self._clock()
        free = now if self._shared else math.inf  # alone, what is claimed is left over from a kill
        rate = self.rules.rate
        return await self._proofs.claim(
            self._before(), free, lambda size: now + CLAIM + 2 * size / rate, BATCH
        )

    async def _batch(self, blobs: Sequence[BlobRow], healing: trio.Nursery) -> None:
        proven, left = list[BlobRow](), list(blobs)
        try:
            while left:
                if await self._sound(left[0], healing):
                    proven.append(left[0])
                left.pop(0)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WRITE_LIMIT):
                await self._note(proven, left)
            raise
        await self._note(proven, left)

    async def _note(self, proven: Sequence[BlobRow], left: Sequence[BlobRow]) -> None:
        await self._proofs.prove(proven, self._clock())
        await self._proofs.release(left)

    async def _sound(self, blob: BlobRow, healing: trio.Nursery) -> bool:
        try:
            await self._prove(blob)
        except BlobMissing as failure:
            self._brake(failure)
            if await self._quarantine.put(blob, failure):
                self._damaged += 1
                healing.start_soon(self._heal, blob.digest)
            return False
        self._absent = 0
        self._checked = Left(self._checked.blobs + 1, self._checked.bytes + blob.size)
        return True

    def _brake(self, failure: BlobMissing) -> None:
        """Raises OSError when it is the disk that cannot be read."""
        self._absent = self._absent + 1 if failure.found in ABSENT else 0
        if self._absent >= IN_A_ROW:
            what = f"{IN_A_ROW} blobs in a row are not there or cannot be read, so the store is at fault"
            raise OSError(f"{what} (is its disk mounted?): {failure}")

    async def _prove(self, blob: BlobRow) -> None:
        """Raises BlobMissing, BlobDamaged, OSError."""
        hasher = blob.digest.hasher()
        for start in range(0, blob.size, STEP):
            stop = min(start + STEP, blob.size)
            read = bind(self._hash, hasher, blob, start, stop)
            await trio.to_thread.run_sync(read, limiter=self._thread, abandon_on_cancel=True)
            await self._pace(stop - start)
        if hasher.hexdigest() != blob.digest.hex:
            said = f"{blob.location} has the digest {hasher.hexdigest()}"
            raise BlobDamaged(said, "mismatch")

    def _hash(self, hasher: Hasher, blob: BlobRow, start: int, stop: int) -> None:
        """In a thread."""
        hasher.update(self._content.read_cold(blob.location, blob.size, start, stop))

    async def _pace(self, count: int) -> None:
        self._ahead = max(self._ahead, trio.current_time()) + count / self.rules.rate
        await trio.sleep_until(self._ahead)

    async def _heal(self, digest: Digest) -> None:
        """Fetch it again, from the first of its repositories that gives it."""
        reasons = list[str]()
        try:
            repositories = await self._proofs.repositories(digest)
            if not repositories:
                said = "damaged blob is of no upstream: whoever pushed it has to do so again"
                log.warning(said, digest=digest)
                return
            for repository in repositories:
                if not (reason := await self.refetch(repository, digest)):
                    log.info("damaged blob fetched anew", digest=digest, repository=repository)
                    return
                reasons.append(f"{repository}: {reason}")
        except (OSError, StoreError) as error:
            reasons.append(str(error))
        log.warning("damaged blob not fetched anew before the next pull", digest=digest, reasons=reasons)


async def _no_upstream(repository: str, digest: Digest) -> str:
    await trio.lowlevel.checkpoint()
    return "no upstream is open"


def refetching(routes: Routes, prefetch: Prefetch) -> Refetch:
    """As a pull would bring it, by the same rules."""

    async def refetch(repository: str, digest: Digest) -> str:
        try:
            target = routes.resolve(repository, None, "")
        except OCIError as error:
            return error.message  # its upstream is not declared any more
        return await prefetch.again(target, digest)

    return refetch
