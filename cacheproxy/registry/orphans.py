"""Stored files and objects that no row names: what a kill leaves behind between storing a blob and its row.

They are never served, so there is no hurry: the sweep begins long after the start, when clients have had
their first answers, and goes on at a pace that nobody feels. A fill commits within minutes: an older file
that has no row will never get one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice
from typing import Protocol

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import StoreError
from cacheproxy.store.queries import PLACES

log = structlog.get_logger()

FIRST = 600.0
"""Seconds after the start, half to whole at random: nodes that start together do not sweep together."""

EVERY = 86400.0
"""Seconds between two sweeps: what they look for comes of kills."""

GRACE = 3600.0
"""Seconds since a file was written until it is missed in the rows: far more than a commit may take."""

PAUSE = 0.05
"""Seconds between two batches: most of the processor and the disk is left to pulls."""


class Files(Protocol):
    """What the sweep needs of a content store. Both block."""

    def files(self, older_than: float, now: float) -> Iterator[tuple[Digest, str]]: ...
    def remove(self, location: str) -> bool: ...


class Rows(Protocol):
    """What it needs of the rows."""

    async def accounted(self, files: Sequence[tuple[Digest, str]]) -> Set[str]:
        """The places that are in a row, of up to PLACES. Raises StoreError."""
        ...


async def watch(content: Files, rows: Rows, clock: Callable[[], float]) -> None:
    """Sweep now and then, for ever."""
    await trio.sleep(FIRST * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    while True:
        try:
            await sweep(content, rows, clock())
        except (OSError, StoreError) as error:
            log.warning("files without a row not looked for", error=str(error))
        await trio.sleep(EVERY)


async def sweep(content: Files, rows: Rows, now: float) -> int:
    """Unlink the files that have been without a row for longer than GRACE. Returns how many.

    Raises OSError when a folder cannot be read, StoreError when the rows cannot.
    """
    removed = 0
    found = content.files(GRACE, now)
    while batch := await trio.to_thread.run_sync(lambda: list(islice(found, PLACES))):
        accounted = await rows.accounted(batch)
        for digest, location in batch:
            # One that was evicted since it was listed is in no row, and gone.
            if location not in accounted and await trio.to_thread.run_sync(content.remove, location):
                log.info("file without a row removed", digest=digest, location=location)
                removed += 1
        await trio.sleep(PAUSE)
    return removed
