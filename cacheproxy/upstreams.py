"""The clients of the upstreams that are configured, each open for as long as anybody can still ask it."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial as bind

import trio

from cacheproxy import wiring
from cacheproxy.config import Upstream
from cacheproxy.upstream.registry import Registry
from cacheproxy.upstream.settings import UpstreamSettings


@asynccontextmanager
async def open_upstreams(via: str) -> AsyncIterator[Upstreams]:
    """Around everything that asks upstreams. `via` is our own name, in the header of what we ask."""
    async with trio.open_nursery() as nursery:
        yield Upstreams(nursery, via)
        nursery.cancel_scope.cancel()


class Upstreams:
    def __init__(self, nursery: trio.Nursery, via: str) -> None:
        self._nursery = nursery
        self._via = via
        self._current: dict[UpstreamSettings, Registry] = {}

    async def open(self, upstreams: Iterable[Upstream]) -> dict[str, Registry]:
        """By prefix. Those that are as before go on, with their tokens, connections and breakers.

        The former others are closed when their last request or download has ended. No upstream is contacted:
        the daemon starts, and serves what it has, when all of them are down. Raises CannotStart (in a group);
        then all stays as it was.
        """
        opened: dict[UpstreamSettings, Registry] = {}
        for upstream in upstreams:
            settings = wiring.upstream_settings(upstream, self._via)
            same = None if _reads_files(settings) else self._current.get(settings)
            opened[settings] = same or await self._nursery.start(_keep_open, settings)
        self._current = opened
        return {settings.name: registry for settings, registry in opened.items()}


def _reads_files(settings: UpstreamSettings) -> bool:
    """It read files when it was opened, which may say something else by now."""
    return settings.ca is not None or settings.client_certificate is not None


async def _keep_open(
    settings: UpstreamSettings, *, task_status: trio.TaskStatus[Registry] = trio.TASK_STATUS_IGNORED
) -> None:
    """Until nobody has the client any more. Who has it is not counted but left to Python: requests, downloads
    and what they wait for come and go in many places.
    """
    async with trio.open_nursery() as renewals, wiring.open_registry(settings, renewals) as registry:
        abandoned = trio.Event()
        wake = bind(_wake, trio.lowlevel.current_trio_token(), abandoned)
        finalizer = weakref.finalize(registry, wake)
        finalizer.atexit = False
        task_status.started(registry)
        del registry, task_status
        try:
            await abandoned.wait()
        finally:
            finalizer.detach()
        renewals.cancel_scope.cancel()


def _wake(token: trio.lowlevel.TrioToken, event: trio.Event) -> None:
    """From wherever the last reference was dropped: another thread, or the garbage collector."""
    token.run_sync_soon(event.set)
