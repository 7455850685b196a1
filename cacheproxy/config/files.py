"""The text of the configuration: a TOML file and what it includes, as one document that knows its lines."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

from cacheproxy.config.toml_lines import Key, positions

SIZE_LIMIT = 4 << 20
"""Bytes of one file. A configuration is text that a person wrote."""


class Place(NamedTuple):
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Problem(NamedTuple):
    """One thing that is wrong, and what to do about it."""

    place: Place
    key: str
    """The path of the key, as "upstream[0].url"; "" for the file as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.text}" if self.key else f"{self.place}: {self.text}"


class ConfigError(Exception):
    """The configuration is not usable; all reasons at once, in the order of files and lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass
class Document:
    """The values of all files together. Lists are tuples: nothing changes them any more."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key: Key, text: str) -> None:
        """Note what is wrong at `key`, or with its absence."""
        self.problems.append(Problem(self.place(key), dotted(key), text))

    def place(self, key: Key) -> Place:
        """Where `key` stands; for one that is not there, the innermost table around it that is."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, Place(self.file, 1))

    def order(self, problem: Problem) -> tuple[bool, Place]:
        """Sorts problems: the main file first, then the others by name, each from top to bottom."""
        return problem.place.file != self.file, problem.place


def dotted(key: Key) -> str:
    """A key's path as people write it: upstream[0].fresh[1].for."""
    words = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(words).removeprefix(".")


def read(path: Path) -> Document:
    """The document of the file at `path` and of its `include`s; its problems are noted in it, not raised."""
    document = Document(str(path))
    _merge(document, path, *_parsed(document, path))
    for included in _included(document, path):
        values, lines = _parsed(document, included)
        if values.pop("include", None) is not None:
            # Where a value comes from stays easy to find.
            place, text = Place(str(included), lines[("include",)]), "only the main file includes others"
            document.problems.append(Problem(place, "include", f"{text}; write it there"))
        _merge(document, included, values, lines)
    return document


def _merge(document: Document, path: Path, values: dict[str, Any], lines: dict[Key, int]) -> None:
    """Add a file: its tables to the tables, its [[upstream]]s after those that are there."""
    shifted = {name: len(document.values.get(name, ())) for name in values if _is_array(values[name])}
    for key, line in lines.items():
        document.places.setdefault(_shift(key, shifted), Place(str(path), line))
    for name, value in values.items():
        if name not in document.values:
            document.values[name] = value
        elif _is_array(value) and _is_array(document.values[name]):
            document.values[name] += value
        elif isinstance(value, dict) and isinstance(document.values[name], dict):
            for key in value.keys() & document.values[name].keys():
                _refuse_second(document, (name, key), Place(str(path), lines[name, key]))
            document.values[name] |= value
        else:
            _refuse_second(document, (name,), Place(str(path), lines[(name,)]))


def _refuse_second(document: Document, key: Key, place: Place) -> None:
    text = f"is set in {document.place(key)} already; keep one of the two"
    document.problems.append(Problem(place, dotted(key), text))


def _is_array(value: object) -> bool:
    """An array of tables: the one kind of value to which each file may add."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, dict) for item in value)


def _shift(key: Key, shifted: dict[str, int]) -> Key:
    match key:
        case (str(name), int(number), *rest) if name in shifted:
            return (name, number + shifted[name], *rest)
        case _:
            return key


def _included(document: Document, main: Path) -> list[Path]:
    patterns = document.values.pop("include", ())
    if not isinstance(patterns, tuple):
        document.problem(("include",), 'must be a list of file names, as ["conf.d/*.toml"]')
        return []
    files: dict[Path, None] = {}
    for number, pattern in enumerate(patterns):
        key = ("include", number)
        if not isinstance(pattern, str) or not pattern:
            document.problem(key, 'must be a file name or a pattern in quotes, as "conf.d/*.toml"')
            continue
        # Not Path.glob: the pattern may be absolute.
        found = sorted(glob(pattern, root_dir=main.parent))  # noqa: PTH207
        if not found and not has_magic(pattern):
            document.problem(key, f'there is no "{pattern}" beside {main.name}; create it or take it out')
        files.update(dict.fromkeys(main.parent / name for name in found))
    files.pop(main, None)
    return list(files)


def _text(document: Document, path: Path) -> str:
    data, line = b"", 1
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
        if len(data) <= SIZE_LIMIT:
            return data.decode()
        problem = f"is larger than {SIZE_LIMIT >> 20} MiB"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = "is not UTF-8; save it in that encoding"
    document.problems.append(Problem(Place(str(path), line), "", problem))
    return ""


def _parsed(document: Document, path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """The values of one file and their lines; nothing, and a problem noted, if it cannot be read."""
    text = _text(document, path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        document.problems.append(_syntax_problem(path, text, str(error)))
        return {}, {}
    return _frozen(values), positions(text)


def _syntax_problem(path: Path, text: str, message: str) -> Problem:
    """The parser names the place in its message: "(at line 3, column 5)" or "(at end of document)"."""
    what, _, where = message.rpartition(" (at ")
    found = re.search(r"line (\d+), column (\d+)", where)
    line = int(found[1]) if found else text.count("\n") + 1
    column = f", at column {found[2]}" if found else ", at the end of the file"
    return Problem(Place(str(path), line), "", f"is not TOML: {what or message}{column}")


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value
