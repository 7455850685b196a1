"""The stores opened for fsck, which looks at them without the daemon, or beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from functools import partial as bind
from typing import TYPE_CHECKING, Any

import trio

from cacheproxy import wiring
from cacheproxy.commands.words import told
from cacheproxy.registry.mending import mend
from cacheproxy.registry.orphans import GRACE
from cacheproxy.store.audit import Audit
from cacheproxy.store.errors import InUse, StoreError
from cacheproxy.store.listing import arriving
from cacheproxy.store.mark import demand_ours
from cacheproxy.store.records import Records
from cacheproxy.store.running import Running

if TYPE_CHECKING:
    from cacheproxy.config import Config


class CannotLook(Exception):
    """The message says why, and what to do."""


def examine(config: Config, *, deep: bool, repair: bool, progress: Callable[[float], None]) -> dict[str, Any]:
    """All findings, as values for JSON. Raises CannotLook."""
    if not config.storage.state.is_dir():
        raise CannotLook(f"{config.storage.state} is not there: no daemon has run with this configuration")
    try:
        with _alone(config) as alone:
            if repair and not alone:
                raise CannotLook(
                    "a daemon runs with this configuration: stop it first, or leave --repair out"
                )
            return trio.run(_examine, config, deep, repair, progress, not alone)
    except (StoreError, OSError, ImportError, wiring.CannotStart) as error:
        raise CannotLook(told(error)) from error


@contextmanager
def _alone(config: Config) -> Iterator[bool]:
    """No daemon starts meanwhile; False: one is running."""
    try:
        running = Running.take(config.storage.state)
    except InUse:
        yield False
        return
    try:
        yield True
    finally:
        running.close()


async def _examine(
    config: Config, deep: bool, repair: bool, progress: Callable[[float], None], daemon: bool
) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        listing = await wiring.listing(config.storage)
        records = None
        if repair:
            records = Records(await stack.enter_async_context(wiring.open_database(config.storage)))
        rows = await stack.enter_async_context(wiring.look_at_rows(config.storage))
        await demand_ours(rows, await wiring.mark(config.storage))
        unfinished = bind(arriving, config.storage.partial)
        audit = Audit(rows, listing, time.time() - GRACE, deep, unfinished, progress=progress)
        findings = []
        async for finding in audit.findings():
            repaired = records is not None and await mend(finding, records, listing)
            findings.append(asdict(finding) | {"repaired": repaired})
        return {"daemon": daemon, "deep": deep, "seen": asdict(audit.seen), "findings": findings}
