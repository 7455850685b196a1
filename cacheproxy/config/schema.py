"""The JSON schema of the configuration, made from the tables themselves: for editors.

It knows keys, types and spellings. What must hold between keys only `check-config FILE` knows.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from cacheproxy.config.events import Audit, Webhook
from cacheproxy.config.hosting import Account, Grant, Template
from cacheproxy.config.kinds import KINDS, Schema, words
from cacheproxy.config.messages import key_names
from cacheproxy.config.sections import Access, Cache, Log, Section, Server, Storage, Traces, Upstream
from cacheproxy.config.virtual import Virtual

TABLES: dict[str, type[Section]] = {
    "server": Server,
    "log": Log,
    "audit": Audit,
    "traces": Traces,
    "storage": Storage,
    "cache": Cache,
    "upstream": Upstream,
    "access": Access,
    "account": Account,
    "grant": Grant,
    "template": Template,
    "virtual": Virtual,
    "webhook": Webhook,
}
ARRAYS = ("upstream", "account", "grant", "template", "virtual", "webhook")

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Schema:
    """Draft 2020-12. TOML has no null: a key without a value is one that is not there."""
    modes = [(table, "validation") for table in TABLES.values()]
    _, tables = models_json_schema(modes, schema_generator=_Generator)  # type: ignore[arg-type]
    included = {"type": "array", "items": {"type": "string"}, "examples": [["conf.d/*.toml"]]}
    properties: Schema = {"include": included}
    for name, table in TABLES.items():
        one = {"$ref": f"#/$defs/{table.__name__}"}
        properties[name] = {"type": "array", "items": one} if name in ARRAYS else one
    return {
        "$schema": DIALECT,
        "title": "cacheproxy's configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": _used(tables["$defs"]),
    }


def _used(definitions: Schema) -> Schema:
    """Without those of types that are written as plain text."""
    text = json.dumps([*definitions.values(), [f"#/$defs/{table.__name__}" for table in TABLES.values()]])
    return {name: table for name, table in definitions.items() if f'"#/$defs/{name}"' in text}


class _Generator(GenerateJsonSchema):
    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        kind = KINDS.get(schema["function"]["function"])
        if kind is None:
            return super().function_before_schema(schema)
        if kind.beside:
            return {"anyOf": [self.generate_inner(schema["schema"]), kind.schema]}
        return dict(kind.schema)

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        return inner if default in (None, "") else {**inner, "default": words(default)}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        table = super().model_schema(schema)
        for key, text in _documented(schema["cls"]).items():
            table["properties"][key].setdefault("description", text)
        return table


def _documented(table: type[BaseModel]) -> dict[str, str]:
    """What stands below the keys in the source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    assert isinstance(definition, ast.ClassDef)
    written = dict(zip(table.model_fields, key_names(table), strict=True))
    texts: dict[str, str] = {}
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                absent = "left out" if table.model_fields[name].default is None else "never"
                texts[written[name]] = inspect.cleandoc(text).replace("None:", f"{absent}:")
    return texts
