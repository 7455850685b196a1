"""The schema for editors: what it says of the example file, and of mistakes in it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from cacheproxy import cli, config
from cacheproxy.config.schema import TABLES, schema
from tests.test_docs import EXAMPLE, uncommented

SCHEMA = schema()


def faults(value: Any, wanted: dict[str, Any], place: str = "") -> Iterator[str]:
    """What is wrong by the keywords that the schema uses; another keyword is a KeyError here."""
    for keyword, argument in wanted.items():
        if not CHECKS[keyword](value, argument):
            yield f"{place}: {keyword}"
    if "$ref" in wanted:
        yield from faults(value, SCHEMA["$defs"][wanted["$ref"].rpartition("/")[2]], place)
    if isinstance(value, dict) and "properties" in wanted:
        for key, inner in value.items():
            if key in wanted["properties"]:
                yield from faults(inner, wanted["properties"][key], f"{place}.{key}")
            elif not wanted["additionalProperties"]:
                yield f"{place}.{key}: unknown"
    if isinstance(value, list) and "items" in wanted:
        for number, inner in enumerate(value):
            yield from faults(inner, wanted["items"], f"{place}[{number}]")


TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
SAYS_NOTHING = [
    "$ref",
    "$schema",
    "$defs",
    "title",
    "description",
    "default",
    "examples",
    "properties",
    "items",
    "additionalProperties",
]
CHECKS: dict[str, Any] = {
    "type": lambda value, name: isinstance(value, TYPES[name]),
    "enum": lambda value, known: value in known,
    "const": lambda value, one: value == one,
    "pattern": lambda value, text: re.search(text, value) is not None,
    "minLength": lambda value, least: len(value) >= least,
    "maxLength": lambda value, most: len(value) <= most,
    "minItems": lambda value, least: len(value) >= least,
    "minimum": lambda value, least: value >= least,
    "maximum": lambda value, most: value <= most,
    "required": lambda value, keys: set(keys) <= set(value),
    "anyOf": lambda value, forms: any(not list(faults(value, form)) for form in forms),
    **dict.fromkeys(SAYS_NOTHING, lambda value, argument: True),
}


@pytest.mark.parametrize(
    "text", [EXAMPLE.read_text(), uncommented(), ""], ids=["plain", "uncommented", "empty"]
)
def test_the_example_file_is_valid(text: str) -> None:
    assert list(faults(tomllib.loads(text), SCHEMA)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[serfer]", ".serfer: unknown"),
        ('server.listten = ["x"]', ".server.listten: unknown"),
        ("server.listen = []", ".server.listen: minItems"),
        ('log.level = "loud"', ".log.level: enum"),
        ('cache.budget = "lots"', ".cache.budget: pattern"),
        ('cache.parallel = "always"', ".cache.parallel: anyOf"),
        ('[[upstream]]\nurl = "https://x.example"', ".upstream[0]: required"),
        ('[[upstream]]\nregistry = "quay.io"\nconnections = 0', ".upstream[0].connections: minimum"),
        (
            '[[upstream]]\nregistry = "quay.io"\nfresh = [{ tags = "v*", for = 5 }]',
            ".upstream[0].fresh[0].for: type",
        ),
    ],
)
def test_a_mistake_is_seen(text: str, fault: str) -> None:
    try:
        found = list(faults(tomllib.loads(text), SCHEMA))
    except TypeError:  # a pattern, of what is no text
        found = [fault]
    assert fault in found


def test_defaults_are_valid_themselves() -> None:
    wrong = [
        f"{name}.{key}"
        for name, table in SCHEMA["$defs"].items()
        for key, field in table.get("properties", {}).items()
        if "default" in field and list(faults(field["default"], field))
    ]
    assert wrong == []


def test_every_definition_is_used_and_every_table_is_there() -> None:
    text = str(SCHEMA)
    assert [name for name in SCHEMA["$defs"] if f"#/$defs/{name}'" not in text] == []
    assert set(SCHEMA["properties"]) == {"include", *TABLES}
    assert set(TABLES) == set(config.TABLES)


def test_keys_are_described_and_none_is_spoken_of() -> None:
    keys = SCHEMA["$defs"]["Server"]["properties"]
    assert keys["trusted_proxies"]["description"] == "Whose X-Forwarded-* counts."
    assert "None" not in str(SCHEMA)


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(cli.main, ["check-config", "--schema"])
    assert result.exit_code == 0
    assert '"$schema": "https://json-schema.org/draft/2020-12/schema"' in result.output
