"""What another configuration would change, key by key, and whether a running daemon can do it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cacheproxy.config.files import dotted
from cacheproxy.config.kinds import words
from cacheproxy.config.sections import Section
from cacheproxy.config.toml_lines import Key

if TYPE_CHECKING:
    from cacheproxy.config import Config

LIVE: tuple[Key, ...] = (
    *(("server", "external_url"), ("server", "trusted_proxies"), ("server", "tls")),
    ("storage", "objects", "redirect"),
    *(("log",), ("audit",), ("cache",), ("access",), ("upstream",), ("account",), ("grant",), ("template",)),
    *(("virtual",), ("webhook",)),
)
"""What SIGHUP applies. All else is held by what was opened at the start."""


class Change(NamedTuple):
    key: Key
    before: str | None
    """As the file would have it; None: it is not there."""
    after: str | None

    @property
    def live(self) -> bool:
        return any(self.key[: len(live)] == live for live in LIVE)

    @property
    def name(self) -> str:
        return dotted(self.key)

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.name} = {self.after}"
        if self.after is None:
            return f"- {self.name} = {self.before}"
        return f"~ {self.name} = {self.after}  (was {self.before})"


def changes(old: Config, new: Config) -> list[Change]:
    """In the order of the tables. An upstream is the same one if its registry and its prefix are."""
    before, after = _flat(old), _flat(new)
    return [
        Change(key, before.get(key), after.get(key))
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ] + _order(old, new)


def feasible(old: Config, new: Config) -> Config:
    """The new one, as far as a running daemon can become it."""
    tables = {
        field.name: _merged((field.name,), getattr(old, field.name), getattr(new, field.name))
        for field in dataclasses.fields(old)
        if isinstance(getattr(old, field.name), Section)
    }
    return dataclasses.replace(new, **tables)


def _merged(key: Key, old: Any, new: Any) -> Any:
    """Of a table the old one, with the values of the new one where they are live."""
    if key in LIVE:
        return new
    if not isinstance(old, Section) or not any(live[: len(key)] == key for live in LIVE):
        return old
    names = type(old).model_fields
    return old.model_copy(
        update={name: _merged((*key, name), getattr(old, name), getattr(new, name)) for name in names}
    )


def _order(old: Config, new: Config) -> list[Change]:
    """Which of several upstreams for one registry comes first means something."""
    before = [_name(upstream) for upstream in old.upstreams]
    after = [_name(upstream) for upstream in new.upstreams]
    if [name for name in before if name in after] == [name for name in after if name in before]:
        return []
    return [Change(("upstream", "order"), json.dumps(before), json.dumps(after))]


def _name(upstream: Any) -> str:
    registry, prefix = upstream.registry, upstream.prefix
    return registry if registry == prefix else f"{registry} as {prefix}"


def _flat(config: Config) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for field in dataclasses.fields(config):
        table = getattr(config, field.name)
        if isinstance(table, Section):
            found.update(_leaves((field.name,), words(table)))
    for upstream in config.upstreams:
        found.update(_leaves(("upstream", _name(upstream)), words(upstream)))
    for account in config.accounts:
        found.update(_leaves(("account", account.name), words(account)))
    for number, grant in enumerate(config.grants, 1):
        found.update(_leaves(("grant", str(number)), words(grant)))
    for template in config.templates:
        found.update(_leaves(("template", template.prefix), words(template)))
    for virtual in config.virtuals:
        found.update(_leaves(("virtual", virtual.prefix), words(virtual)))
    for webhook in config.webhooks:
        found.update(_leaves(("webhook", webhook.name), words(webhook)))
    return found


def _leaves(key: Key, value: Any) -> Iterator[tuple[Key, str]]:
    """Tables are gone into; a list is one value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves((*key, name), inner)
    else:
        yield key, json.dumps(value, ensure_ascii=False)
