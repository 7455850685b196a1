"""Stored files that no row names: what a kill between the rename and the commit of a blob leaves behind.

They are never served. A fill commits within minutes: an older file that has no row will never get one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.store.records import Records

log = structlog.get_logger()

GRACE = 3600.0
"""Seconds from a file's last byte until it is missed in the rows: far more than a commit may take."""

BATCH = 256
"""Files looked at per hop to a thread."""


class Files(Protocol):
    """What the sweep needs of a content store on disk. Both block."""

    def files(self, older_than: float, now: float) -> Iterator[tuple[Digest, str]]: ...
    def remove(self, location: str) -> bool: ...


async def sweep(content: Files, records: Records, now: float) -> int:
    """Unlink the files that have been without a row for longer than GRACE. Returns how many.

    Raises OSError when a folder cannot be read, StoreError when the rows cannot.
    """
    removed = 0
    found = content.files(GRACE, now)
    while batch := await trio.to_thread.run_sync(lambda: list(islice(found, BATCH))):
        for digest, location in batch:
            row = await records.any_blob(digest)
            if (row is not None and row.location == location) or await records.trashed(location):
                continue
            await trio.to_thread.run_sync(content.remove, location)
            log.info("file without a row removed", digest=digest, location=location)
            removed += 1
    return removed
