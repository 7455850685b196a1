"""Stored bytes that are not the blob's any more: taken from the row at once, kept aside for a while.

In one transaction the row has no bytes and the quarantine has a note of them; a pull fills the blob again.
Then the file is moved aside, for whoever wants to know what happened to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from cacheproxy.registry import metrics
from cacheproxy.registry.space import Space
from cacheproxy.store.errors import BlobMissing, StoreError
from cacheproxy.store.proofs import PAGE, Proofs, Quarantined
from cacheproxy.store.rows import BlobRow

log = structlog.get_logger()

KEPT = 7 * 86400.0
"""Seconds that damaged bytes, and what is known of them, are kept. What was pushed, and is here nowhere else,
is kept until it is pushed again, or its repositories let it go: perhaps somebody can mend it."""

KEPT_BYTES = 1 << 30
"""Of the newest: evidence, which must not fill a disk. They are beside the budget, as is what was pushed."""

SECONDS = 30.0
"""That noting it may take, whoever has gone: what is noted is also counted."""


class Aside(Protocol):
    """What is asked of the content store."""

    def set_aside(self, location: str) -> None:
        """Blocking. Once or more often. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Damage:
    """One blob's, for people."""

    digest: str
    size: int
    found: str
    """missing, unreadable, truncated, mismatch."""
    reason: str
    noticed: float
    """Seconds since the epoch."""
    kept: bool
    """The bytes can still be looked at."""


class Quarantine:
    def __init__(self, proofs: Proofs, content: Aside, space: Space, clock: Callable[[], float]) -> None:
        self._proofs = proofs
        self._content = content
        self._space = space
        self._clock = clock
        self._added = 0
        """Bytes put aside since the last look at all that is."""

    async def put(self, blob: BlobRow, failure: BlobMissing) -> bool:
        """These bytes are not to be had, or are wrong: no reader gets them any more.

        False when that was noted before, or cannot be: it is logged, and the next reader finds the same.
        """
        ours = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            try:
                ours = await self._proofs.quarantine(blob, failure.found, str(failure), self._clock())
            except (OSError, StoreError) as error:
                log.warning("damaged blob not quarantined", digest=blob.digest, error=str(error))
            if ours:  # else it was evicted, or another reader was first: both are no news
                self._count(blob, failure)
                await self._move(blob, failure)
        return ours

    async def _move(self, blob: BlobRow, failure: BlobMissing) -> None:
        """What fails is done by a later `tidy`: nobody reads these bytes any more."""
        self._added += 0 if failure.found == "missing" else blob.size
        try:
            await self._set_aside([blob.location])
            if self._added > KEPT_BYTES:
                await self.tidy()
        except (OSError, StoreError) as error:
            log.warning("damaged bytes not moved aside yet", location=blob.location, error=str(error))

    def _count(self, blob: BlobRow, failure: BlobMissing) -> None:
        self._space.forget(blob.size)
        metrics.INTEGRITY_FAILURES.labels(failure.found).inc()
        log.error(
            "stored blob is damaged: nobody gets these bytes any more",
            digest=blob.digest,
            found=failure.found,
            reason=str(failure),
        )

    async def damage(self) -> list[Damage]:
        """What was found of late, the last first."""
        return [
            Damage(item.digest, item.size, item.found, item.reason, item.noticed, bool(item.location))
            for item in await self._proofs.quarantined()
        ]

    async def tidy(self) -> None:
        """Let go what was kept long enough; move aside what a kill left in its place.

        Raises StoreError, OSError.
        """
        now, self._added = self._clock(), 0
        rows = await self._proofs.kept(now - KEPT)
        bytes_of, rows_of = passed(rows, now)
        for start in range(0, max(len(bytes_of), len(rows_of)), PAGE):
            part = slice(start, start + PAGE)
            await self._proofs.let_go(bytes_of[part], rows_of[part], now)
        gone = {item.location for item in (*bytes_of, *rows_of)}
        await self._set_aside([item.location for item in rows if item.location not in gone])

    async def _set_aside(self, locations: Iterable[str]) -> None:
        for location in locations:
            if location:
                await trio.to_thread.run_sync(self._content.set_aside, location, abandon_on_cancel=True)


def passed(rows: Sequence[Quarantined], now: float) -> tuple[list[Quarantined], list[Quarantined]]:
    """Of those in quarantine, the last first: whose bytes go, and which are forgotten altogether."""
    bytes_of, rows_of, total = list[Quarantined](), list[Quarantined](), 0
    for item in rows:
        if item.location and item.last:
            continue
        total += item.size if item.location else 0
        if now - item.noticed > KEPT:
            rows_of.append(item)
        elif item.location and total > KEPT_BYTES:
            bytes_of.append(item)
            total -= item.size
    return bytes_of, rows_of
