from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.config.toml_lines import Key, positions


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("a = 1", ("a",), 1),
        ("# note\n\n  a = 1 # b = 2\nb=2", ("b",), 4),
        ("a.b.c = 1", ("a", "b"), 1),
        ("\na . b = 1", ("a", "b"), 2),
        ("\n\"a.b\" = 1\n'c d' = 2", ("a.b",), 2),
        ("\n\"a.b\" = 1\n'c d' = 2", ("c d",), 3),
        ('"\\u0061" = 1', ("a",), 1),
        ("[t]\na = 1", ("t", "a"), 2),
        ("[t]\na = 1", ("t",), 1),
        ("\n[ t . u ] # x\na = 1", ("t", "u", "a"), 3),
        ("[[u]]\na=1\n[[u]]\na=2", ("u", 1, "a"), 4),
        ("[[u]]\na=1\n[[u]]\na=2", ("u",), 1),
        ("[[u]]\na=1\n[[u]]\na=2", ("u", 1), 3),
        ("[[u]]\n[u.s]\na=1\n[[u]]\n[u.s]\na=2", ("u", 1, "s", "a"), 6),
        ("[[u]]\n[[u.v]]\n[[u.v]]\na=1\n[[u]]\n[[u.v]]\na=2", ("u", 0, "v", 1, "a"), 4),
        ("[[u]]\n[[u.v]]\n[[u.v]]\na=1\n[[u]]\n[[u.v]]\na=2", ("u", 1, "v", 0, "a"), 7),
        ("a = [1,\n 2, # ]\n 3]\nb = 1", ("a", 2), 3),
        ("a = [1,\n 2, # ]\n 3,\n]\nb = 1", ("b",), 5),
        ("a = [[1],\n[2,\n3]]", ("a", 1, 1), 3),
        ("a = { b = 1, c.d = 2 }\ne = 1", ("a", "c", "d"), 1),
        ("a = [\n {b = 1},\n {b = 2, c = [\n3]}\n]\nd = 1", ("a", 1, "c", 0), 4),
        ("a = [\n {b = 1},\n {b = 2, c = [\n3]}\n]\nd = 1", ("d",), 6),
        ("a = '[x'\nb = 1", ("b",), 2),
        ('a = "x\\"]#"\nb = 1', ("b",), 2),
        ('a = """x\n[y]\nz = 1"""\nb = 1', ("b",), 4),
        ('a = """x\\"""""\nb = 1', ("b",), 2),
        ('a = """x"""""\nb = 1', ("b",), 2),
        ("a = '''x\n'y' ''\n'''''\nb = 1", ("b",), 4),
        ('a = ""\nb = \'\'\nc = """"""\nd = 1', ("d",), 4),
        ("a = 1979-05-27 07:32:00Z\nb = 1.5e3\nc = 1", ("c",), 3),
        ("a = 1\r\nb = 2\r\n", ("b",), 2),
    ],
)
def test_a_key_stands_on_its_line(text: str, key: Key, line: int) -> None:
    tomllib.loads(text)
    assert positions(text)[key] == line


def test_a_table_opened_twice_has_the_line_of_the_first() -> None:
    assert positions("a.b.c = 1\n\na.b.d = 2")["a", "b"] == 1


def test_a_key_inside_a_string_is_not_a_key() -> None:
    assert ("b",) not in positions('a = """\nb = 1\n"""')


def test_an_empty_document_has_no_places() -> None:
    assert positions("# nothing\n") == {}


names = st.sampled_from(["a", "b-1", "c_2", '"d.e"', "'f g'", '"h\\t"', '"]"', "'#'"])
scalars = st.sampled_from(
    ["1", "true", "0.5", '"#x"', "'[y]'", '"""\n# z\n[w]\n"""', "'''\n'quoted' = 1\n'''", "07:32:00", '"\\""']
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # [\n" + ",\n".join(items) + "\n]"),
        st.dictionaries(names, inner, max_size=3).map(
            lambda items: "{ " + ", ".join(f"{k} = {v}" for k, v in items.items()) + " }"
        ),
    ),
    max_leaves=6,
)
tables = st.dictionaries(names, values, max_size=4)


def paths(value: Any, path: Key = ()) -> set[Key]:
    found = {path} if path else set()
    if isinstance(value, dict):
        return found.union(*(paths(item, (*path, key)) for key, item in value.items()))
    if isinstance(value, list):
        return found.union(*(paths(item, (*path, number)) for number, item in enumerate(value)))
    return found


@given(st.lists(st.tuples(st.booleans(), names, tables), max_size=5))
def test_every_key_the_parser_knows_has_a_place(parts: list[tuple[bool, str, dict[str, str]]]) -> None:
    arrays = {name: array for array, name, _ in parts}
    lines: list[str] = []
    opened: set[str] = set()
    for _, name, table in parts:
        if name in opened and not arrays[name]:
            continue
        opened.add(name)
        lines.append(f"[[{name}]]" if arrays[name] else f"[ {name} ] # ]")
        lines.extend(f"{key} = {value}" for key, value in table.items())
    text = "\n".join(lines)
    assert set(positions(text)) == paths(tomllib.loads(text))
