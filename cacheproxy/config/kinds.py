"""The kinds of values the other way round: what an editor may know of them, and how the file would say them.

What reads them is in values.py and sections.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from cacheproxy.config import values
from cacheproxy.config.events import Audit
from cacheproxy.config.hosting import Mutability, Template
from cacheproxy.config.sections import STALE_CAUSES, Cache, Section, StaleIfError, Storage, Traces
from cacheproxy.config.values import Amount
from cacheproxy.core.patterns import Patterns

Schema = dict[str, Any]
Reader = Callable[..., Any]


class Kind(NamedTuple):
    schema: Schema
    words: Callable[[Any], Any] | None = None
    """A value as the file would have it, where the value's own type does not tell."""
    beside: bool = False
    """The schema is a second form, beside what the type says."""


def duration(seconds: float) -> str:
    """As "90s", in the largest unit of which it is a whole number."""
    if seconds == math.inf:
        return "forever"
    return _largest(seconds, {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001})


def size(count: float) -> str:
    """As "64KiB", likewise."""
    return _largest(count, {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1})


def share(part: float) -> str:
    """As "50%"; what is never reached is "never"."""
    return "never" if part == math.inf else f"{part * 100:g}%"


def mutability(of_tags: Mutability) -> Any:
    """As "immutable", or { immutable_except = [...] }."""
    word = "immutable" if of_tags.immutable else "mutable"
    return {f"{word}_except": list(of_tags.other)} if of_tags.other else word


def _largest(amount: float, units: dict[str, float]) -> str:
    whole = (unit for unit, one in units.items() if amount >= one and (amount / one).is_integer())
    unit = next(whole, list(units)[-1])
    return f"{amount / units[unit]:.15g}{unit}"


def _text(*examples: str, pattern: str | None = None) -> Schema:
    schema: Schema = {"type": "string", "examples": list(examples)}
    return schema if pattern is None else {**schema, "pattern": pattern}


_NUMBER = r"^[0-9]+(\.[0-9]+)?"
_DURATION = Kind(_text("90s", "5m", "24h", pattern=rf"{_NUMBER}(ms|s|m|h|d)$|^forever$"), duration)
_SIZE = Kind(_text("64MiB", pattern=rf"{_NUMBER}(B|KiB|MiB|GiB|TiB)$"), size)
_PATTERNS = Kind(
    {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "examples": ["library/**", ["**", "!secret/**"]],
    }
)


def _reader(annotation: Any) -> Reader:
    """What reads a value of a kind from the file."""
    return next(mark.func for mark in get_args(annotation) if isinstance(mark, BeforeValidator))


def reader_of(field: FieldInfo) -> Reader | None:
    """The same of a field; None: its type says all."""
    return next((mark.func for mark in field.metadata if isinstance(mark, BeforeValidator)), None)


_FIELDS: dict[tuple[type[Section], str], Kind] = {
    (Storage, "state"): Kind(_text("/var/lib/cacheproxy")),
    (Storage, "database"): Kind(_text("cacheproxy.db", "postgresql://cacheproxy@db/cacheproxy")),
    (Storage, "blobs"): Kind(_text("blobs", "s3://bucket/prefix")),
    (Cache, "finish_fill"): Kind(_text("50%", "never", pattern=rf"{_NUMBER}%$|^never$"), share),
    (Cache, "parallel"): Kind(
        {"const": "never"}, lambda parallel: "never" if parallel is None else words(parallel), beside=True
    ),
    (Audit, "file"): Kind(_text("/var/log/cacheproxy/audit.log", "stderr", pattern="^$|^/|^stderr$")),
    (Traces, "sample"): Kind(_text("1%", pattern=rf"{_NUMBER}%$"), share),
    (Template, "tag_mutability"): Kind(
        {
            "anyOf": [
                {"enum": ["mutable", "immutable"]},
                {"type": "object", "examples": [{"immutable_except": ["latest", "dev-*"]}]},
            ]
        },
        mutability,
    ),
    (StaleIfError, "causes"): Kind({"type": "array", "items": {"enum": sorted(map(str, STALE_CAUSES))}}),
}

KINDS: dict[Reader | None, Kind] = {
    _reader(values.Duration): _DURATION,
    _reader(values.Size): _SIZE,
    _reader(values.AmountOf): Kind(_text("200GiB", "5%", pattern=rf"{_NUMBER}(%|B|KiB|MiB|GiB|TiB)$")),
    _reader(values.Network): Kind(_text("10.0.0.0/8", "::1")),
    _reader(values.File): Kind(_text("corp-ca.pem")),
    _reader(values.PatternList): _PATTERNS,
    _reader(values.Registry): Kind(_text("docker.io", "ghcr.io", "quay.io")),
    _reader(values.Prefix): Kind(_text("docker-hub")),
    _reader(values.Host): Kind(_text("hub.cache.example")),
    _reader(values.Origin): Kind(_text("https://registry.example", pattern="^https?://")),
    _reader(values.HookURL): Kind(_text("https://hooks.example/registry", pattern="^https?://")),
    _reader(values.ProxyURL): Kind(_text("http://proxy.example:3128", pattern="^http://")),
    _reader(values.Endpoint): Kind(_text("https://s3.example", pattern="^$|^https?://")),
    _reader(values.Collector): Kind(_text("http://127.0.0.1:4318", pattern="^$|^https?://")),
    _reader(values.ExternalURL): Kind(_text("https://cache.example", pattern="^$|^https?://")),
    _reader(values.Listen): Kind(_text("0.0.0.0:5000", "[::1]:5000", "unix:/run/http.sock", "systemd:http")),
    _reader(values.AdminSocket): Kind(_text("unix:admin.sock", pattern="^unix:.")),
    **{reader_of(table.model_fields[name]): kind for (table, name), kind in _FIELDS.items()},
}
"""By what reads them."""


def words(value: Any) -> Any:
    """A value of the configuration as the file would have it: JSON's types, tables as dicts, no None."""
    match value:
        case Section():
            return _table(value)
        case Amount():
            return share(value.share) if value.share else size(value.bytes)
        case Patterns():
            return value.texts[0] if len(value.texts) == 1 else list(value.texts)
        case tuple():
            return [words(item) for item in value]
        case dict():
            return {key: words(item) for key, item in value.items()}
        case frozenset():
            return sorted(map(str, value))
        case bool() | int() | float():
            return value
        case _:
            return str(value)


def _table(section: Section) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        kind = KINDS.get(reader_of(field))
        if kind is not None and kind.words is not None:
            table[field.alias or name] = kind.words(value)
        elif value is not None:
            table[field.alias or name] = words(value)
    return table
