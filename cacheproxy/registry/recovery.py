"""What a start looks at after an unclean end: a kill, a failure, or no power.

A blob's row is written after its bytes are durable. So all should be well, and what is looked at is whether
the disk has kept its promises: the database by its own quick check, the bytes of what was stored last by
their being there, before anybody is served. Hashing them is left to the scrub, which is asked to begin with
them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.store.database import Database
from cacheproxy.store.errors import BlobMissing, DatabaseRefused, StoreError
from cacheproxy.store.proofs import Proofs
from cacheproxy.store.rows import BlobRow

log = structlog.get_logger()

LATELY = 600.0
"""Seconds before the end. What is older has long been written back, whatever was promised."""

BLOBS = 1024
"""Of those, the latest: a start must not take long because much was pulled."""

FEW = 8
"""The first ones: when none of these is there it is the store, not them, and nothing is condemned."""

DATABASE_SECONDS = 1.0
BYTES_SECONDS = 1.0
"""That each look may keep clients waiting: what it has not got to is found when it is read."""


class Bytes(Protocol):
    def confirm(self, digest: Digest, location: str, size: int) -> None:
        """Blocking. Raises BlobMissing, OSError."""
        ...


async def recover(name: object, database: Database, content: Bytes, quarantine: Quarantine) -> None:
    """`name` is the database's, for messages.

    Raises DatabaseRefused for a damaged database, StoreError when it does not answer.
    """
    began = time.monotonic()
    for fault in await database.faults(DATABASE_SECONDS):
        raise DatabaseRefused.damaged(name, fault)
    proofs = Proofs(database)
    blobs = await proofs.lately(LATELY, BLOBS)
    damaged = await trio.to_thread.run_sync(_damaged, content, blobs, abandon_on_cancel=True)
    for blob, failure in damaged:
        await quarantine.put(blob, failure)
    await proofs.want(blob.digest for blob in blobs)
    log.warning(
        "the last daemon did not end in order: what it had stored last was looked at",
        blobs=len(blobs),
        damaged=len(damaged),
        seconds=round(time.monotonic() - began, 3),
    )


def _damaged(content: Bytes, blobs: Sequence[BlobRow]) -> list[tuple[BlobRow, BlobMissing]]:
    """In a thread: those whose bytes are not there, the latest stored first."""
    found: list[tuple[BlobRow, BlobMissing]] = []
    deadline = time.monotonic() + BYTES_SECONDS
    for looked, blob in enumerate(blobs):
        if looked == FEW and [failure.found for _, failure in found] == ["missing"] * FEW:
            what = "none of the blobs that were stored last is there: is the disk of the store mounted?"
            log.error(what, reason=str(found[0][1]))
            return []
        if time.monotonic() > deadline:
            log.warning("not all of what was stored last was looked at", seconds=BYTES_SECONDS)
            break
        try:
            content.confirm(blob.digest, blob.location, blob.size)
        except BlobMissing as failure:
            found.append((blob, failure))
        except (OSError, StoreError) as error:  # it does not answer, which says nothing about the blob
            log.warning("stored blob not looked at", digest=blob.digest, error=str(error))
            break
    return found
