"""Reading the configuration: a frozen Config, or everything that is wrong, each with its file and line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cacheproxy.config.checks import Declared, conflicts
from cacheproxy.config.files import ConfigError, Document, read
from cacheproxy.config.messages import message, unknown_key
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
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.values import BucketURL, Surroundings

__all__ = [
    "Access",
    "BucketURL",
    "Cache",
    "ClientCertificate",
    "Config",
    "ConfigError",
    "Credentials",
    "Log",
    "Objects",
    "Scrub",
    "Secret",
    "Server",
    "ServerCertificate",
    "Storage",
    "Traces",
    "Upstream",
    "load",
]

S = TypeVar("S", bound=Section)

TABLES = ("server", "log", "traces", "storage", "cache", "upstream", "access")


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
    traces = _section(document, "traces", Traces, around)
    storage = _section(document, "storage", Storage, around)
    cache = _section(document, "cache", Cache, around)
    access = _section(document, "access", Access, around)
    declared = _upstreams(document, around)
    for conflict in conflicts(server, declared):
        document.problem(conflict.key, conflict.text.format(other=document.place(conflict.other)))
    if document.problems:
        raise ConfigError(sorted(document.problems, key=document.order))
    # A section that failed has left a problem.
    assert server is not None
    assert log is not None
    assert traces is not None
    assert storage is not None
    assert cache is not None
    assert access is not None
    return Config(
        path, server, log, traces, storage, cache, tuple(upstream for _, upstream in declared), access
    )


def _section(document: Document, name: str, kind: type[S], around: Surroundings) -> S | None:
    return _validated(document, (name,), document.values.get(name, {}), kind, around)


def _upstreams(document: Document, around: Surroundings) -> list[Declared]:
    """The declared ones; where none is declared, the presets."""
    tables = document.values.get("upstream", ())
    if not isinstance(tables, tuple):
        document.problem(("upstream",), "must be an array of tables; write [[upstream]] with two brackets")
        return []
    if not tables:
        tables = tuple({"registry": name, "default": name == DEFAULT} for name in PRESETS)
    valid = (
        (number, _validated(document, ("upstream", number), table, Upstream, around))
        for number, table in enumerate(tables)
    )
    return [(number, upstream) for number, upstream in valid if upstream is not None]


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
