"""Reading the configuration: a frozen Config, or everything that is wrong, each with its file and line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cacheproxy.config.checks import Declared, conflicts, doubles
from cacheproxy.config.events import Audit, Webhook
from cacheproxy.config.files import ConfigError, Document, read
from cacheproxy.config.hosting import Account, Grant, Template
from cacheproxy.config.messages import message, unknown_key
from cacheproxy.config.names import name_conflicts
from cacheproxy.config.presets import DEFAULT, PRESETS
from cacheproxy.config.sections import (
    Access,
    Cache,
    ClientCertificate,
    Credentials,
    Log,
    Objects,
    Scrub,
    Secret,
    Section,
    Server,
    ServerCertificate,
    Storage,
    Traces,
    Upstream,
)
from cacheproxy.config.templates import template_conflicts
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.values import BucketURL, Surroundings
from cacheproxy.config.virtual import Virtual, virtual_conflicts

__all__ = [
    "Access",
    "Account",
    "Audit",
    "BucketURL",
    "Cache",
    "ClientCertificate",
    "Config",
    "ConfigError",
    "Credentials",
    "Grant",
    "Log",
    "Objects",
    "Scrub",
    "Secret",
    "Server",
    "ServerCertificate",
    "Storage",
    "Template",
    "Traces",
    "Upstream",
    "Virtual",
    "Webhook",
    "load",
]

S = TypeVar("S", bound=Section)

TABLES = (
    *("server", "log", "audit", "traces", "storage", "cache", "upstream", "access"),
    *("account", "grant", "template", "virtual", "webhook"),
)


@dataclass(frozen=True, slots=True)
class Config:
    """What the whole daemon is built from. Each component gets its own section, nobody gets this."""

    file: Path | None
    """None: there is none, and everything has its default."""
    server: Server
    log: Log
    traces: Traces
    storage: Storage
    cache: Cache
    upstreams: tuple[Upstream, ...]
    """In the order of declaration, which decides between several for one registry. Never empty."""
    access: Access
    accounts: tuple[Account, ...]
    grants: tuple[Grant, ...]
    templates: tuple[Template, ...]
    grants_at: tuple[str, ...] = ()
    """Where each of the grants stands: file and line."""
    virtuals: tuple[Virtual, ...] = ()

    webhooks: tuple[Webhook, ...] = ()
    audit: Audit = field(default_factory=Audit)

    @property
    def admin_socket(self) -> Path:
        return self.storage.state / self.server.admin.removeprefix("unix:")


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the file at `path`; None stands for an empty one. Raises ConfigError."""
    document = Document("configuration") if path is None else read(path)
    around = Surroundings(Path() if path is None else path.parent, environment)
    for name in document.values.keys() - set(TABLES):
        document.problem((name,), unknown_key(name, ["include", *TABLES]))
    server = _section(document, "server", Server, around)
    log = _section(document, "log", Log, around)
    audit = _section(document, "audit", Audit, around)
    traces = _section(document, "traces", Traces, around)
    storage = _section(document, "storage", Storage, around)
    cache = _section(document, "cache", Cache, around)
    access = _section(document, "access", Access, around)
    declared = _upstreams(document, around)
    accounts = _array(document, "account", Account, around)
    grants = _array(document, "grant", Grant, around)
    templates = _array(document, "template", Template, around)
    virtuals = _array(document, "virtual", Virtual, around)
    webhooks = _array(document, "webhook", Webhook, around)
    found = (
        *conflicts(server, declared),
        *doubles(accounts, templates, webhooks),
        *virtual_conflicts(virtuals, declared),
        *template_conflicts(templates, declared, virtuals),
        *name_conflicts(server, access, grants),
    )
    for conflict in found:
        document.problem(conflict.key, conflict.text.format(other=document.place(conflict.other)))
    if document.problems:
        raise ConfigError(sorted(document.problems, key=document.order))
    # A section that failed has left a problem.
    assert server is not None
    assert log is not None
    assert audit is not None
    assert traces is not None
    assert storage is not None
    assert cache is not None
    assert access is not None
    upstreams = tuple(upstream for _, upstream in declared)
    return Config(
        path,
        server,
        log,
        traces,
        storage,
        cache,
        upstreams,
        access,
        tuple(account for _, account in accounts),
        tuple(grant for _, grant in grants),
        tuple(template for _, template in templates),
        tuple(str(document.place(("grant", number))) for number, _ in grants),
        tuple(virtual for _, virtual in virtuals),
        tuple(webhook for _, webhook in webhooks),
        audit,
    )


def _section(document: Document, name: str, kind: type[S], around: Surroundings) -> S | None:
    return _validated(document, (name,), document.values.get(name, {}), kind, around)


def _upstreams(document: Document, around: Surroundings) -> list[Declared]:
    """The declared ones; where none is declared, the presets."""
    if document.values.get("upstream", ()) == ():
        presets = tuple({"registry": name, "default": name == DEFAULT} for name in PRESETS)
        return _valid(document, "upstream", presets, Upstream, around)
    return _array(document, "upstream", Upstream, around)


def _array(document: Document, name: str, kind: type[S], around: Surroundings) -> list[tuple[int, S]]:
    """The tables of an array, each with its number in the file, as far as they are valid."""
    tables = document.values.get(name, ())
    if not isinstance(tables, tuple):
        document.problem((name,), f"must be an array of tables; write [[{name}]] with two brackets")
        return []
    return _valid(document, name, tables, kind, around)


def _valid(
    document: Document, name: str, tables: tuple[object, ...], kind: type[S], around: Surroundings
) -> list[tuple[int, S]]:
    judged = (
        (number, _validated(document, (name, number), table, kind, around))
        for number, table in enumerate(tables)
    )
    return [(number, section) for number, section in judged if section is not None]


def _validated(document: Document, key: Key, table: object, kind: type[S], around: Surroundings) -> S | None:
    """Each table is judged by itself, so that what is wrong with one does not hide another's faults."""
    try:
        return kind.model_validate(table, context=around)
    except ValidationError as failure:
        for error in failure.errors(include_url=False, include_input=False):
            text = message(error, kind)
            if text is not None:
                document.problem((*key, *error["loc"]), text)
    return None
