"""The daemon, put together: everything is built here from the configuration, and ended here in order.

Doors first, then what works behind them: requests end, then fills leave their journals, then the database
closes.
"""

from __future__ import annotations

import resource
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial as bind
from types import MappingProxyType
from typing import NamedTuple

import structlog
import trio
from prometheus_client import disable_created_metrics

from cacheproxy import hangup, hosting, readiness, request_log, systemd, wiring
from cacheproxy import log as logging
from cacheproxy.api.admin import AdminDoor
from cacheproxy.api.dispatch import Door
from cacheproxy.api.distribution import Distribution
from cacheproxy.api.meter import Meter
from cacheproxy.api.operations import OperatorDoor
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.config import Config
from cacheproxy.core.digest import Digest
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.listeners import Passed, describe, open_listeners
from cacheproxy.edge.message import Application, Exchange, Log
from cacheproxy.edge.server import serve
from cacheproxy.entrance import Entrance
from cacheproxy.registry import orphans
from cacheproxy.registry.accounts import Accounts
from cacheproxy.registry.blobs import Blobs, DiskShelf
from cacheproxy.registry.condition import Watch
from cacheproxy.registry.eviction import Eviction
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.flights import Flights
from cacheproxy.registry.inventory import Inventory
from cacheproxy.registry.listings import Listings
from cacheproxy.registry.manifests import Manifests
from cacheproxy.registry.origin import Missing
from cacheproxy.registry.pins import Pins
from cacheproxy.registry.prefetch import Prefetch
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.recovery import recover
from cacheproxy.registry.removal import Purge
from cacheproxy.registry.scrub import Refetch, Scrub, refetching
from cacheproxy.registry.space import Space
from cacheproxy.reload import Current, Previews, Reload, Requests
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.partial import KEPT
from cacheproxy.store.proofs import Proofs
from cacheproxy.store.records import Records
from cacheproxy.store.removal import Removal
from cacheproxy.store.running import running
from cacheproxy.store.scratch import Scratch
from cacheproxy.store.survey import Survey
from cacheproxy.upstream.registry import Registry
from cacheproxy.upstreams import open_upstreams

log = structlog.get_logger()

REAP_EVERY = 3600.0
"""Seconds between two looks for unfinished downloads that nobody came back for."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Bytes and rows, open."""

    database: Database
    records: Records
    content: Content
    address: Callable[[str, int], Awaitable[str]] | None
    scratch: Scratch
    unclean: bool
    """The last daemon did not end in order."""


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
        _stores(config) as stores,
        open_upstreams(via) as upstreams,
        trio.open_nursery() as background,
    ):
        space = await _space(config, stores)
        background.start_soon(_reap, stores, space)
        background.start_soon(orphans.watch, stores.content, stores.records, time.time)
        recency = Recency(stores.records.record_used, time.time)
        background.start_soon(recency.run)
        shared = isinstance(config.storage.database, str)
        keep = wiring.keep(config.upstreams)
        eviction = Eviction(stores.records, stores.content, space, recency, keep, time.time, shared=shared)
        await background.start(eviction.run)
        lasting = _lasting(config, stores, space, recency, eviction, background, via)
        if stores.unclean:
            await recover(config.storage.database, stores.database, stores.content, lasting.quarantine)
        background.start_soon(lasting.hosted.run)
        accounts = await hosting.accounts(config, lasting.hosted)
        doors = _doors(config, lasting, await upstreams.open(config.upstreams), accounts)
        lasting.scrub.refetch = doors.refetch
        background.start_soon(lasting.scrub.run)
        clients, commands = Current(doors.clients), Current(doors.commands)
        requests = Requests(config.log, background)

        async def apply(new: Config) -> None:
            nonlocal doors, config
            enter = await entrance.prepare(new.server)
            await wiring.prove_redirects(config.storage, new.storage)
            accounts = await hosting.accounts(new, lasting.hosted)
            doors = _doors(new, lasting, await upstreams.open(new.upstreams), accounts, doors.prefetch)
            # From here on nothing waits: no request sees one half of it.
            clients.door, commands.door = doors.clients, doors.commands
            _limit(new, lasting, doors)
            logging.configure(new.log)
            requests.configure(new.log)
            lasting.ready.clear()
            enter()
            config = new

        operators = OperatorDoor(readiness.checks(stores.database, stores.records, stores.content))
        await background.start(stores.database.watch, lasting.ready)
        background.start_soon(entrance.watch)
        reload = Reload(config, apply)

        def ready(status: str) -> None:
            systemd.ready(status)
            if hangups is not None:
                background.start_soon(reload.run, hangups, status)

        outside, observe = traced(clients, _observer(Meter(), requests))
        applications = Applications(outside, operators, Previews(commands, reload.preview))
        await _serve(config, passed, entrance, applications, observe, ready, drain, task_status)
        background.cancel_scope.cancel()


@asynccontextmanager
async def _stores(config: Config) -> AsyncIterator[Stores]:
    storage = config.storage
    with running(storage.state) as unclean:
        scratch = await trio.to_thread.run_sync(Scratch, storage.state / "scratch")
        try:
            async with wiring.open_content(storage) as blobs, wiring.open_database(storage) as database:
                yield Stores(database, Records(database), blobs.content, blobs.address, scratch, unclean)
        finally:
            scratch.close()


async def _space(config: Config, stores: Stores) -> Space:
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


@dataclass(frozen=True, slots=True)
class Lasting:
    """What no reload replaces."""

    stores: Stores
    space: Space
    recency: Recency
    eviction: Eviction
    quarantine: Quarantine
    scrub: Scrub
    fills: Fills
    hosted: hosting.Lasting
    ready: ReadyAnswers
    background: trio.Nursery
    via: str
    started: float


def _lasting(
    config: Config,
    stores: Stores,
    space: Space,
    recency: Recency,
    eviction: Eviction,
    background: trio.Nursery,
    via: str,
) -> Lasting:
    shelf = DiskShelf(stores.content, stores.records, time.time)
    fills = Fills(background, shelf, wiring.fill_rules(config.cache), space, eviction)
    proofs, now = Proofs(stores.database), time.time
    quarantine = Quarantine(proofs, stores.content, space, now)
    rules = wiring.scrub_rules(config.cache, config.storage)
    shared = isinstance(config.storage.database, str)
    scrub = Scrub(proofs, stores.content, quarantine, rules, now, shared=shared)
    ready = ReadyAnswers()
    hosted = hosting.Lasting.of(stores, space, ready, now)
    return Lasting(
        stores, space, recency, eviction, quarantine, scrub, fills, hosted, ready, background, via, now()
    )


def _limit(config: Config, lasting: Lasting, doors: Doors) -> None:
    _, total = lasting.stores.content.capacity()
    lasting.space.limit(config.cache.budget.of(total), config.cache.min_free.of)
    lasting.eviction.limits_changed(wiring.keep(config.upstreams))
    lasting.fills.rules = wiring.fill_rules(config.cache)
    lasting.scrub.rules = wiring.scrub_rules(config.cache, config.storage)
    lasting.scrub.refetch = doors.refetch


class Doors(NamedTuple):
    """What one configuration makes of requests. Whoever came in by it stays with it."""

    clients: Door
    commands: AdminDoor
    prefetch: Prefetch
    refetch: Refetch


def _doors(
    config: Config,
    lasting: Lasting,
    registries: Mapping[str, Registry],
    accounts: Accounts,
    before: Prefetch | None = None,
) -> Doors:
    stores, space, fills, background = lasting.stores, lasting.space, lasting.fills, lasting.background
    records, missing, clock = stores.records, Missing(stores.scratch), time.time
    origins = {upstream.prefix: wiring.origin(upstream, registries) for upstream in config.upstreams}
    manifests = Manifests(records, missing, Flights(background), origins, clock)
    blobs = Blobs(
        records,
        stores.content,
        missing,
        Flights(background),
        fills,
        lasting.quarantine,
        lasting.recency,
        origins,
        clock,
        stores.address,
    )
    listings = Listings(records, stores.scratch, Flights(background), origins, clock)
    distribution = Distribution(manifests, blobs, listings, config.storage.objects.redirect)
    routes = wiring.routes(config)
    hosts = lasting.hosted
    hosted = hosting.hosted(config, stores, hosts.push, lasting.quarantine, lasting.ready, routes, clock)
    callers, tokens = hosting.entry(config, accounts, hosts.keys, routes, clock)
    clients = Door(routes, callers, distribution, hosted, lasting.ready, lasting.via, tokens=tokens)
    watch = Watch(registries.values(), fills, space, stores.content.capacity, clock, lasting.started)
    keep, survey = wiring.keep(config.upstreams), Survey(stores.database)
    inventory = Inventory(records, survey, fills, missing, origins, keep)
    purge = Purge(Removal(stores.database), lasting.eviction.trash, listings, fills, background, clock)
    prefetch = Prefetch(manifests, blobs, fills, background, before)
    pins, scrub, quarantine = Pins(records), lasting.scrub, lasting.quarantine
    keeping = hosting.keeping(config, stores, lasting.ready, routes, clock)
    commands = AdminDoor(
        *(routes, lasting.ready, watch, inventory, purge, pins, prefetch, scrub, quarantine),
        *(hosts.collector, hosts.issued, keeping),
    )
    return Doors(clients, commands, prefetch, refetching(routes, prefetch))


class Applications(NamedTuple):
    """By who comes to them (edge.message.Application)."""

    clients: Application
    operators: Application
    commands: Application


async def _serve(
    config: Config,
    passed: Passed,
    entrance: Entrance,
    applications: Applications,
    observe: Log,
    ready: Callable[[str], None],
    drain: trio.Event,
    task_status: trio.TaskStatus[Mapping[str, list[str]]],
) -> None:
    """All doors, open until `drain`; the operators' ones close after the clients' one."""
    listeners = await trio.to_thread.run_sync(open_listeners, config.server.listen, passed)
    metrics = await trio.to_thread.run_sync(open_listeners, (config.server.metrics,), passed)
    admin = await trio.to_thread.run_sync(open_listeners, (f"unix:{config.admin_socket}",))
    for name in passed:
        if f"systemd:{name}" not in (*config.server.listen, config.server.metrics):
            # Its clients would connect, and wait for ever.
            log.warning("a socket of the service manager is not in server.listen", name=name)
    bound = {
        "listen": [describe(listener) for listener in listeners],
        "metrics": [describe(listener) for listener in metrics],
        "admin": [describe(listener) for listener in admin],
    }
    closed = trio.Event()
    inside = bind(serve, limits=Limits(), log=request_log.unlogged, drain=closed)
    async with trio.open_nursery() as doors:
        await doors.start(inside, metrics, applications.operators)
        await doors.start(inside, admin, applications.commands)
        log.info(
            "serving", upstreams=len(config.upstreams), **{door: " ".join(bound[door]) for door in bound}
        )
        ready(f"serving on {' '.join(bound['listen'])}")
        task_status.started(bound)
        await serve(
            listeners,
            applications.clients,
            limits=Limits.within(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            forwarding=entrance.forwarding,
            log=observe,
            drain=drain,
            tls=entrance.context,
        )
        closed.set()


def _observer(meter: Meter, write: Log) -> Log:
    def observe(exchange: Exchange) -> None:
        meter.count(exchange)
        write(exchange)

    return observe


async def _reap(stores: Stores, space: Space) -> None:
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
