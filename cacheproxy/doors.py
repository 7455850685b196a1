"""What answers, made anew from each configuration, and what no reload replaces."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from weakref import WeakKeyDictionary

import trio

from cacheproxy import behalf, hosting, wiring
from cacheproxy.api.admin import AdminDoor
from cacheproxy.api.dispatch import Door
from cacheproxy.api.distribution import Distribution
from cacheproxy.api.events import EventsDoor
from cacheproxy.api.operator import Operators, OperatorsDoor
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.api.virtual import Virtuals
from cacheproxy.audit_log import AuditLog, commanded, recorded
from cacheproxy.config import Config
from cacheproxy.edge.message import Application
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
from cacheproxy.registry.orphans import Sweep
from cacheproxy.registry.pins import Pins
from cacheproxy.registry.prefetch import Prefetch
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.removal import Purge
from cacheproxy.registry.scrub import Refetch, Scrub, refetching
from cacheproxy.registry.sinks import Sinks
from cacheproxy.registry.space import Space
from cacheproxy.store.proofs import Proofs
from cacheproxy.store.removal import Removal
from cacheproxy.store.survey import Survey
from cacheproxy.stores import Stores
from cacheproxy.upstream.registry import Registry


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
    sinks: Sinks
    ready: ReadyAnswers
    background: trio.Nursery
    via: str
    started: float
    audit: AuditLog = field(default_factory=AuditLog)
    given: behalf.Given = field(default_factory=WeakKeyDictionary)
    sweep: Sweep = field(default_factory=Sweep)

    @classmethod
    def of(
        cls,
        config: Config,
        stores: Stores,
        space: Space,
        recency: Recency,
        eviction: Eviction,
        sinks: Sinks,
        background: trio.Nursery,
        via: str,
    ) -> Self:
        shelf = DiskShelf(stores.content, stores.records, time.time)
        fills = Fills(background, shelf, wiring.fill_rules(config.cache), space, eviction)
        proofs, now = Proofs(stores.database), time.time
        quarantine = Quarantine(proofs, stores.content, space, now)
        rules = wiring.scrub_rules(config.cache, config.storage)
        shared = isinstance(config.storage.database, str)
        scrub = Scrub(proofs, stores.content, quarantine, rules, now, shared=shared)
        ready = ReadyAnswers()
        hosted = hosting.Lasting.of(stores, space, ready, now)
        return cls(
            *(stores, space, recency, eviction, quarantine, scrub, fills, hosted, sinks, ready),
            *(background, via, now()),
        )


def limit(config: Config, lasting: Lasting, doors: Doors) -> None:
    _, total = lasting.stores.content.capacity()
    lasting.space.limit(config.cache.budget.of(total), config.cache.min_free.of)
    lasting.eviction.limits_changed(wiring.keep(config.upstreams))
    lasting.fills.rules = wiring.fill_rules(config.cache)
    lasting.scrub.rules = wiring.scrub_rules(config.cache, config.storage)
    lasting.scrub.refetch = doors.refetch


class Doors(NamedTuple):
    """What one configuration makes of requests. Whoever came in by it stays with it."""

    clients: Door
    commands: Application
    prefetch: Prefetch
    refetch: Refetch

    @classmethod
    def of(
        cls,
        config: Config,
        lasting: Lasting,
        registries: Mapping[str, Registry],
        accounts: Accounts,
        before: Prefetch | None = None,
    ) -> Self:
        stores, space, fills, background = lasting.stores, lasting.space, lasting.fills, lasting.background
        records, missing, clock = stores.records, Missing(stores.scratch), time.time
        born = hosting.born_by_pull(config)
        origins = {each.prefix: wiring.origin(each, registries, born) for each in config.upstreams}
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
            behalf.claims(config, stores.database),
        )
        listings = Listings(records, stores.scratch, Flights(background), origins, clock)
        distribution = Distribution(manifests, blobs, listings, config.storage.objects.redirect)
        routes = wiring.routes(config)
        hosts = lasting.hosted
        hosted = hosting.hosted(config, stores, hosts.push, lasting.quarantine, lasting.ready, routes, clock)
        entered, tokens = hosting.entry(config, accounts, hosts, routes, clock)
        callers, tokens = recorded(entered, tokens, config.audit, lasting.audit)
        given = behalf.made(config, registries, lasting.given, accounts, routes, background, clock)
        hidden, operators = wiring.hidden_by(config.upstreams), Operators()
        clients = Door(
            *(routes, callers, distribution, hosted, lasting.ready, lasting.via),
            tokens=tokens,
            behalf=given,
            virtuals=Virtuals(distribution, hosted, callers, hidden),
        )
        watch = Watch(
            registries.values(), fills, space, stores.content.capacity, clock, lasting.started, lasting.sweep
        )
        keep, survey = wiring.keep(config.upstreams), Survey(stores.database)
        inventory = Inventory(records, survey, fills, missing, origins, keep)
        removal = Removal(stores.database, stores.outbox)
        purge = Purge(removal, lasting.eviction.trash, listings, fills, background, clock)
        prefetch = Prefetch(manifests, blobs, fills, background, before)
        pins, scrub, quarantine = Pins(records), lasting.scrub, lasting.quarantine
        keeping = hosting.keeping(config, stores, hosts, accounts, lasting.ready, routes, clock)
        commands = AdminDoor(
            *(routes, lasting.ready, watch, inventory, purge, pins, prefetch, scrub, quarantine),
            *(hosts.collector, hosts.issued, {**keeping, **EventsDoor(lasting.sinks).handlers()}),
        )
        registry = Door(
            *(routes, operators, distribution, hosted, lasting.ready, lasting.via),
            behalf=given,
            virtuals=Virtuals(distribution, hosted, operators, hidden),
        )
        socket = commanded(OperatorsDoor(commands, registry), config.audit, lasting.audit)
        return cls(clients, socket, prefetch, refetching(routes, prefetch))
