"""What has to work for this daemon to serve what it has: its rows and its bytes, and no upstream."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial as bind

import trio

from cacheproxy.api.operations import Check
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.records import Records


def checks(database: Database, records: Records, content: Content) -> Mapping[str, Check]:
    thread = trio.CapacityLimiter(1)  # a disk that hangs costs one thread, however often it is asked
    return {"database": bind(_usable, database, records), "store": bind(_answering, content, thread)}


async def _usable(database: Database, records: Records) -> None:
    """The database answers, and has not lost the disk's trust."""
    await records.repository("")
    if database.suspect is not None:
        raise database.suspect


async def _answering(content: Content, thread: trio.CapacityLimiter) -> None:
    await trio.to_thread.run_sync(content.check, abandon_on_cancel=True, limiter=thread)
