"""The upstreams that decide for themselves who may read them, put together from the configuration."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial as bind

import trio

from cacheproxy.api.behalf import Behalf
from cacheproxy.config import Config
from cacheproxy.core.credentials import Login
from cacheproxy.core.routing import Routes
from cacheproxy.registry.accounts import Accounts
from cacheproxy.registry.authority import Authority, Tickets
from cacheproxy.registry.issued import hash_of
from cacheproxy.store.claims import Claims
from cacheproxy.store.database import Database
from cacheproxy.upstream.registry import Registry

Given = MutableMapping[Registry, Tickets]
"""What callers were given, by the client of their upstream: both last as long as its settings do."""


def made(
    config: Config,
    registries: Mapping[str, Registry],
    given: Given,
    accounts: Accounts,
    routes: Routes,
    nursery: trio.Nursery,
    clock: Callable[[], float],
) -> dict[str, Behalf]:
    """By the upstream's prefix."""
    found: dict[str, Behalf] = {}
    for upstream in config.upstreams:
        if upstream.by_caller:
            registry = registries[upstream.prefix]
            tickets = given.setdefault(registry, Tickets())
            authority = Authority(registry, tickets, nursery)
            found[upstream.prefix] = Behalf(authority, routes, bind(is_ours, accounts), clock)
    return found


def claims(config: Config, database: Database) -> Claims | None:
    """None: of all upstreams our own rights say who may read them."""
    private = [upstream.prefix for upstream in config.upstreams if upstream.by_caller]
    return Claims(database, private) if private else None


async def is_ours(accounts: Accounts, login: Login) -> bool:
    """Whether the login is an account's that has a secret made by a machine, and so is meant for us alone.

    A person may well have the same name and password in both places.
    """
    if accounts.federation is not None and accounts.federation.knows(login.password):
        return True
    proof = await accounts.proof(f"user:{login.name}")
    return proof is not None and hmac.compare_digest(proof, hash_of(login.password))
