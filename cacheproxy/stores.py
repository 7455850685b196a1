"""Bytes and rows, opened from the configuration, and the room that they have."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import trio

from cacheproxy import wiring
from cacheproxy.config import Config
from cacheproxy.core.digest import Digest
from cacheproxy.registry.space import Space
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.mark import claim
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.partial import KEPT
from cacheproxy.store.records import Records
from cacheproxy.store.running import running
from cacheproxy.store.scratch import Scratch

log = structlog.get_logger()

REAP_EVERY = 3600.0
"""Seconds between two looks for unfinished downloads that nobody came back for."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Bytes and rows, open."""

    database: Database
    outbox: Outbox
    """Where all that is changed in it is noted."""
    records: Records
    content: Content
    address: Callable[[str, int], Awaitable[str]] | None
    scratch: Scratch
    unclean: bool
    """The last daemon did not end in order."""


@asynccontextmanager
async def open_stores(config: Config) -> AsyncIterator[Stores]:
    storage = config.storage
    with running(storage.state) as unclean:
        scratch = await trio.to_thread.run_sync(Scratch, storage.state / "scratch")
        try:
            async with wiring.open_content(storage) as blobs, wiring.open_database(storage) as database:
                await claim(database, blobs.content, await wiring.mark(storage))
                outbox = Outbox()
                records = Records(database, outbox)
                yield Stores(database, outbox, records, blobs.content, blobs.address, scratch, unclean)
        finally:
            scratch.close()


async def measured(config: Config, stores: Stores) -> Space:
    _, total = stores.content.capacity()
    stored = await stores.records.cached_bytes()
    partials = await trio.to_thread.run_sync(lambda: list(stores.content.partials()))
    return Space(
        config.cache.budget.of(total),
        config.cache.min_free.of,
        stores.content.capacity,
        stored=stored,
        partials=[(part.digest, part.bytes) for part in partials],
    )


async def reap(stores: Stores, space: Space) -> None:
    """What nobody came back for gives its room to others."""
    while True:
        reaped: list[Digest] = []
        try:
            reaped = await trio.to_thread.run_sync(stores.content.reap, KEPT, time.time())
        except OSError as error:
            log.warning("unfinished downloads not looked through", error=str(error))
        for digest in reaped:
            log.info("unfinished download removed", digest=digest)
        space.drop_parts(reaped)
        await trio.sleep(REAP_EVERY)
