"""What must hold between the parts of a configuration that are well-formed one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from cacheproxy.config.events import Webhook
from cacheproxy.config.hosting import Account, Template
from cacheproxy.config.sections import Server, Upstream
from cacheproxy.config.toml_lines import Key


class Conflict(NamedTuple):
    """Two places that cannot both be: the later one gets the blame, the earlier one is named."""

    key: Key
    text: str
    """What is wrong; "{other}" stands for the place of `other`."""
    other: Key


Declared = tuple[int, Upstream]
"""An upstream and its number in the file."""


def conflicts(server: Server | None, upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    """Everything that does not fit together."""
    if server is not None:
        yield from _listeners(server)
        yield from _own_hosts(server, upstreams)
    yield from _hosts(upstreams)
    for former, latter in combinations(upstreams, 2):
        yield from _defaults(former, latter)
        yield from _prefixes(former, latter)
    for declared in upstreams:
        yield from _own_prefix(declared)
        yield from _by_caller(declared)


def doubles(
    accounts: Sequence[tuple[int, Account]],
    templates: Sequence[tuple[int, Template]],
    webhooks: Sequence[tuple[int, Webhook]] = (),
) -> Iterator[Conflict]:
    """Names that are given twice."""
    named = [
        *(("account", number, "name", account.name) for number, account in accounts),
        *(
            ("account", number, "access_key", account.access_key)
            for number, account in accounts
            if account.access_key is not None
        ),
        *(
            ("template", number, "prefix", f"{template.prefix} for {birth}")
            for number, template in templates
            for birth in template.applied_for
        ),
        *(("webhook", number, "name", webhook.name) for number, webhook in webhooks),
    ]
    seen: dict[tuple[str, str, str], Key] = {}
    for table, number, key, name in named:
        if (table, key, name) in seen:
            text = f'"{name}" is declared at {{other}} already; keep one of the two'
            yield Conflict((table, number, key), text, seen[table, key, name])
        seen.setdefault((table, key, name), (table, number, key))


def _listeners(server: Server) -> Iterator[Conflict]:
    places: dict[str, Key] = {}
    keys: list[Key] = [("server", "listen", number) for number in range(len(server.listen))]
    for address, key in zip((*server.listen, server.metrics), (*keys, ("server", "metrics")), strict=True):
        if address.endswith(":0"):
            continue  # the kernel chooses another port for each
        if address in places:
            yield Conflict(key, "is listened on already, at {other}; choose another port", places[address])
        places.setdefault(address, key)


def _hosts(upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    owners: dict[str, Key] = {}
    for number, upstream in upstreams:
        for place, host in enumerate(upstream.hosts):
            key: Key = ("upstream", number, "hosts", place)
            if host in owners:
                text = f'"{host}" is named at {{other}} already; keep one of the two'
                yield Conflict(key, text, owners[host])
            owners.setdefault(host, key)


def _own_hosts(server: Server, upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    for number, upstream in upstreams:
        for place, host in enumerate(upstream.hosts):
            if host in server.own_hosts:
                key: Key = ("upstream", number, "hosts", place)
                text = f'"{host}" is our own, by external_url at {{other}}; an upstream needs one of its own'
                yield Conflict(key, text, ("server", "external_url"))


def _defaults(former: Declared, latter: Declared) -> Iterator[Conflict]:
    if former[1].default and latter[1].default:
        text = "there is a default at {other} already; bare names go to one upstream only"
        yield Conflict(("upstream", latter[0], "default"), text, ("upstream", former[0], "default"))


def _prefixes(former: Declared, latter: Declared) -> Iterator[Conflict]:
    """One name must never mean repositories of two upstreams."""
    (first, one), (second, two) = former, latter
    key: Key = ("upstream", second, "prefix")
    other: Key = ("upstream", first, "prefix")
    if one.prefix == two.prefix:
        if one.registry == two.registry:
            text = f'"{two.registry}" is declared at {{other}} already; give one of them a prefix'
        else:
            text = f'"{two.prefix}" is the prefix of "{one.registry}" at {{other}}; choose another'
        yield Conflict(key, text, other)
    elif within(one.prefix, two.prefix) or within(two.prefix, one.prefix):
        text = f'"{two.prefix}" and "{one.prefix}" at {{other}} lie within one another; choose another'
        yield Conflict(key, text, other)
    elif first_segment(two.prefix) == one.registry and one.registry != two.registry:
        text = f'"{two.prefix}" begins with the registry declared at {{other}}; choose another'
        yield Conflict(key, text, ("upstream", first, "registry"))
    elif first_segment(one.prefix) == two.registry and one.registry != two.registry:
        text = f'"{one.prefix}" begins with the registry declared at {{other}}; choose another'
        yield Conflict(other, text, ("upstream", second, "registry"))


def _own_prefix(declared: Declared) -> Iterator[Conflict]:
    number, upstream = declared
    if upstream.prefix != upstream.registry and first_segment(upstream.prefix) == upstream.registry:
        text = f'"{upstream.prefix}" begins with the registry at {{other}}; choose another, or take it out'
        yield Conflict(("upstream", number, "prefix"), text, ("upstream", number, "registry"))


_NOT_BY_CALLER = {
    "credentials": "the account at {other} is ours, and would read for everybody",
    "client_certificate": "the certificate at {other} is ours, and would let everybody in",
    "mirrors": "those at {other} would get to see what callers have for this upstream",
    "default": "bare names, at {other}, are for no host of its own, where callers say who they are",
}


def _by_caller(declared: Declared) -> Iterator[Conflict]:
    number, upstream = declared
    if not upstream.by_caller:
        return
    key: Key = ("upstream", number, "authority")
    if not upstream.hosts:
        text = "takes a host of its own, where callers say who they are: add hosts to {other}"
        yield Conflict(key, f'"caller" {text}', ("upstream", number))
    for name, why in _NOT_BY_CALLER.items():
        if getattr(upstream, name):
            text = f'"caller" does not go with {name}: {why}; take one of them out'
            yield Conflict(key, text, ("upstream", number, name))


def within(outer: str, inner: str) -> bool:
    return inner.startswith(f"{outer}/")


def first_segment(prefix: str) -> str:
    return prefix.partition("/")[0]
