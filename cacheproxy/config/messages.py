"""What the validator found, in the words of the person who wrote the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cacheproxy.config.toml_lines import Key

MESSAGES = {
    "missing": "is missing; add it",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list: [...]",
    "model_type": "must be a table: {{ ... }}",
    "model_attributes_type": "must be a table: {{ ... }}",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not be empty; take the line out for the default",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "holds characters that no name of this kind has",
    "value_error": "{error}",
}
"""By the type of error; in braces, its own parameters. None repeats a value: it may be a secret."""

SILENT = frozenset({"default_factory_not_called"})
"""Echoes of another error."""


def message(error: ErrorDetails, model: type[BaseModel]) -> str | None:
    """What to say about an error of validating `model`; None: nothing."""
    kind = error["type"]
    if kind in SILENT:
        return None
    if kind == "extra_forbidden":
        return _unknown(error["loc"], model)
    return MESSAGES.get(kind, error["msg"]).format(**error.get("ctx", {}))


def unknown_key(key: str, known: list[str]) -> str:
    """What to say about a key that does not exist."""
    close = difflib.get_close_matches(key, known, n=1)
    advice = f'did you mean "{close[0]}"?' if close else f"here can be: {', '.join(known)}"
    return f"is not a key; {advice}"


def _unknown(key: Key, model: type[BaseModel]) -> str:
    *path, name = key
    for part in path:
        if isinstance(part, str):
            model = _table(model, part)
    return unknown_key(str(name), key_names(model))


def key_names(model: type[BaseModel]) -> list[str]:
    """As they are written in the file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _table(model: type[BaseModel], key: str) -> type[BaseModel]:
    """The model of the table, or of the elements of the array of tables, at `key`."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return next(tables_in(fields[key].annotation))


def tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of: in it, in its union, in its tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from tables_in(argument)
