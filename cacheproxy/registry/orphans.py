"""Stored files and objects that no row names: what a kill leaves behind between storing a blob, or a chunk of
an upload, and its row.

They are never served, so there is no hurry: the sweep begins long after the start, when clients have had
their first answers, and goes on at a pace that nobody feels. A fill commits within minutes: an older file
that has no row will never get one.

No kill leaves many. When half of what is stored has no row, the rows are those of another store, or of
another time, and nothing is removed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial as bind
from itertools import islice
from typing import Protocol, TypeVar

import structlog
import trio

from cacheproxy.registry import metrics
from cacheproxy.store.errors import StoreError
from cacheproxy.store.queries import PLACES

log = structlog.get_logger()

FIRST = 600.0
"""Seconds after the start, half to whole at random: nodes that start together do not sweep together."""

EVERY = 86400.0
"""Seconds between two sweeps: what they look for comes of kills."""

GRACE = 3600.0
"""Seconds since a file was written until it is missed in the rows: far more than a commit may take."""

AGAIN = 600.0
"""Seconds between two looks at the rows: only what is in neither goes. GRACE is by the clock of whoever wrote
the file: it may be wrong, and a bucket may date an object from the start of an upload that took hours."""

MOST = 50_000
"""Files of one sweep, which it keeps in mind: the next one looks for more."""

PAUSE = 0.05
"""Seconds between two batches: most of the processor and the disk is left to pulls."""

SHARE = 0.5
FEW = 100
"""The brake: of more files than these, not more than this share goes."""


T = TypeVar("T")

File = tuple[str, str]
"""What it is of, a blob's digest or an upload's session, and its place."""


class Files(Protocol):
    """What the sweep needs of a content store. Both block."""

    def files(self, older_than: float, now: float) -> Iterator[File]: ...
    def remove(self, location: str) -> bool: ...


class Rows(Protocol):
    """What it needs of the rows."""

    async def accounted(self, files: Sequence[File]) -> Set[str]:
        """The places that are in a row, of up to PLACES. Raises StoreError."""
        ...


class TooMany(Exception):
    """Nothing was removed. The message says of how many files, and what to do."""


@dataclass(slots=True)
class Sweep:
    """What there is to tell of the last one."""

    stopped: str = ""
    """Why its brake stopped it; "": it did not."""


async def watch(content: Files, rows: Rows, clock: Callable[[], float], last: Sweep | None = None) -> None:
    """Sweep now and then, for ever. `last` hears of each, and the metric with it."""
    await trio.sleep(FIRST * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    while True:
        stopped = ""
        try:
            await sweep(content, rows, clock())
        except TooMany as error:
            stopped = str(error)
            log.error("files without a row not removed", reason=stopped)  # noqa: TRY400 - no fault of ours
        except (OSError, StoreError) as error:
            log.warning("files without a row not looked for", error=str(error))
        if last is not None:
            last.stopped = stopped
            metrics.SWEEP_STOPPED.set(bool(stopped))
        await trio.sleep(EVERY)


async def sweep(content: Files, rows: Rows, now: float) -> int:
    """Unlink the files that have been without a row for longer than GRACE, and still are after AGAIN. Returns
    how many.

    Raises OSError when a folder cannot be read, StoreError when the rows cannot, TooMany.
    """
    found, lost, seen = content.files(GRACE, now), list[File](), 0
    while len(lost) < MOST and (batch := await _blocking(lambda: list(islice(found, PLACES)))):
        lost += await _unaccounted(rows, batch)
        seen += len(batch)
        await trio.sleep(PAUSE)
    if seen > FEW and len(lost) > seen * SHARE:
        raise TooMany(
            f"{len(lost)} of {seen} stored files have no row: is the database an old or another one?"
            " `cacheproxy fsck` names them; if they are to go, stop the daemon and run `fsck --repair`"
        )
    if lost:
        await trio.sleep(AGAIN)
    removed = 0
    for start in range(0, len(lost), PLACES):
        for file in await _unaccounted(rows, lost[start : start + PLACES]):
            removed += await _removed(content, file)
        await trio.sleep(PAUSE)
    return removed


async def _unaccounted(rows: Rows, files: Sequence[File]) -> list[File]:
    accounted = await rows.accounted(files)
    return [file for file in files if file[1] not in accounted]


async def _removed(content: Files, file: File) -> bool:
    """One that was evicted since it was listed is in no row, and gone."""
    owner, location = file
    try:
        removed = await _blocking(bind(content.remove, location))
    except OSError as error:
        log.warning("file without a row not removed", location=location, error=str(error))
        return False
    if removed:
        log.info("file without a row removed", of=owner, location=location)
    return removed


async def _blocking(call: Callable[[], T]) -> T:
    """Abandoned at a shutdown: a store that hangs holds nobody, and what is removed twice does no harm."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
