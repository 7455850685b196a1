"""The daemon, put together: everything is built here from the configuration, and ended here in order.

Doors first, then what works behind them: requests end, then fills leave their journals, then the database
closes.
"""

from __future__ import annotations

import resource
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial as bind
from types import MappingProxyType

import structlog
import trio
from prometheus_client import disable_created_metrics

from cacheproxy import hangup, hosting, readiness, systemd, wiring
from cacheproxy import log as logging
from cacheproxy.api.meter import Meter
from cacheproxy.api.operations import OperatorDoor
from cacheproxy.config import Config
from cacheproxy.doors import Doors, Lasting, limit
from cacheproxy.edge.listeners import Passed
from cacheproxy.entrance import Entrance
from cacheproxy.names import nothing_hidden
from cacheproxy.registry import orphans
from cacheproxy.registry.eviction import Eviction
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.recovery import recover
from cacheproxy.reload import Current, Previews, Reload, Requests
from cacheproxy.serving import Applications, observer, serve_all
from cacheproxy.stores import measured, open_stores, reap
from cacheproxy.upstreams import open_upstreams
from cacheproxy.webhooks import Webhooks

log = structlog.get_logger()


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError, StoreError and the like when the daemon cannot start."""
    logging.configure(config.log)
    _allow_descriptors()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    trio.run(_until_signalled, config, systemd.passed_sockets())


def _allow_descriptors() -> None:
    """As many as the hard limit lets us: the usual soft limit (1024) is for programs that use select."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _until_signalled(config: Config, passed: Passed) -> None:
    drain = trio.Event()
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        hangup.release()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain_on_signal, signals, drain, nursery.cancel_scope)
            await main(config, drain, passed=passed, hangups=hangups)
            nursery.cancel_scope.cancel()


async def _drain_on_signal(signals: AsyncIterator[int], drain: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal lets running answers finish; a second one does not."""
    async for received in signals:
        log.info("stopping", signal=signal.Signals(received).name, at_once=drain.is_set())
        if drain.is_set():
            scope.cancel()
        drain.set()
        systemd.stopping("finishing running answers")


async def main(
    config: Config,
    drain: trio.Event,
    *,
    passed: Passed = MappingProxyType({}),
    hangups: AsyncIterator[int] | None = None,
    task_status: trio.TaskStatus[Mapping[str, list[str]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The daemon until `drain` is set and its answers are out. `started` gets the bound addresses by door.

    At each of `hangups` the configuration is read again.
    """
    entrance = await Entrance.open(config.server)
    via = f"cacheproxy-{secrets.token_hex(4)}"
    async with (
        wiring.open_traces(config.traces) as traced,
        open_stores(config) as stores,
        open_upstreams(via) as upstreams,
        trio.open_nursery() as background,
    ):
        space = await measured(config, stores)
        background.start_soon(reap, stores, space)
        recency = Recency(stores.records.record_used, time.time)
        background.start_soon(recency.run)
        shared = isinstance(config.storage.database, str)
        keep = wiring.keep(config.upstreams)
        eviction = Eviction(stores.records, stores.content, space, recency, keep, time.time, shared=shared)
        await background.start(eviction.run)
        webhooks = Webhooks(stores.database, stores.outbox, background, time.time, via, shared=shared)
        (await webhooks.prepare(config))()
        background.start_soon(webhooks.sinks.run)
        lasting = Lasting.of(config, stores, space, recency, eviction, webhooks.sinks, background, via)
        background.start_soon(orphans.watch, stores.content, stores.records, time.time, lasting.sweep)
        if stores.unclean:
            await recover(config.storage.database, stores.database, stores.content, lasting.quarantine)
        background.start_soon(lasting.hosted.run)
        await nothing_hidden(config, stores.database)
        lasting.audit.enter(await lasting.audit.prepare(config.audit))
        accounts = await hosting.accounts(config, lasting.hosted)
        doors = Doors.of(config, lasting, await upstreams.open(config.upstreams), accounts)
        lasting.scrub.refetch = doors.refetch
        background.start_soon(lasting.scrub.run)
        clients, commands = Current(doors.clients), Current(doors.commands)
        requests = Requests(config.log, background)
        background.start_soon(lasting.audit.run)

        async def apply(new: Config) -> None:
            nonlocal doors, config
            enter = await entrance.prepare(new.server)
            tell = await webhooks.prepare(new)
            await wiring.prove_redirects(config.storage, new.storage)
            await nothing_hidden(new, stores.database)
            accounts = await hosting.accounts(new, lasting.hosted)
            doors = Doors.of(new, lasting, await upstreams.open(new.upstreams), accounts, doors.prefetch)
            record = await lasting.audit.prepare(new.audit)
            # From here on nothing waits: no request sees one half of it.
            lasting.audit.enter(record)
            clients.door, commands.door = doors.clients, doors.commands
            limit(new, lasting, doors)
            logging.configure(new.log)
            requests.configure(new.log)
            lasting.ready.clear()
            enter()
            tell()
            config = new

        operators = OperatorDoor(readiness.checks(stores.database, stores.records, stores.content))
        remembered = hosting.Remembered(lasting.ready, lasting.hosted.grants)
        await background.start(stores.database.watch, remembered)
        background.start_soon(entrance.watch)
        reload = Reload(config, apply, bind(nothing_hidden, database=stores.database))

        def ready(status: str) -> None:
            systemd.ready(status)
            if hangups is not None:
                background.start_soon(reload.run, hangups, status)

        outside, observe = traced(clients, observer(Meter(), requests))
        applications = Applications(outside, operators, Previews(commands, reload.preview))
        await serve_all(config, passed, entrance, applications, observe, ready, drain, task_status)
        background.cancel_scope.cancel()
