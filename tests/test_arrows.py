"""Who may import whom (docs/architecture.md, "The house"). A package is a floor: imports go down."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "cacheproxy"
MODULES = sorted(ROOT.rglob("*.py"))

ARROWS = {
    "core": [],
    "edge": ["core"],
    "upstream": ["core"],
    "store": ["core"],
    "registry": ["core", "store", "upstream"],
    "api": ["core", "edge.message", "registry"],
}
"""What of ours each package may import, besides itself."""

NEVER = {
    "core": [
        "asyncio",
        "logging",
        "os",
        "pathlib",
        "random",
        "socket",
        "ssl",
        "subprocess",
        "threading",
        "time",
    ],
    "api": ["apsw", "sqlite3", "httpx", "httpcore"],
}
"""What of the standard library and of others a package does without. Core's third parties are in the test."""

TOP = {"cacheproxy.app": {"cli"}, "cacheproxy.cli": {"__main__"}}
"""Modules that build everything, and who alone may start them."""


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, at any depth; relative imports are not used here."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from cacheproxy import log` imports a module, `from cacheproxy.log import write` a name in one.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "cacheproxy" else [node.module or ""]


def package(path: Path) -> str:
    """The floor a module is on; for the modules of the top level, their own name."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def within(name: str, parents: list[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def allowed(floor: str, name: str) -> bool:
    ours = name.removeprefix("cacheproxy.")
    if name in TOP:
        return floor in TOP[name]
    if ours != name:
        return floor not in ARROWS or within(ours, [floor, *ARROWS[floor]])
    first = name.partition(".")[0]
    if floor == "core" and first not in sys.stdlib_module_names:
        return first == "msgspec"
    return not within(name, NEVER.get(floor, []))


def violations(path: Path) -> list[str]:
    floor = package(path)
    return [name for name in imports(path) if not allowed(floor, name)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_floor_may(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    ("floor", "line"),
    [
        ("core", "import trio"),
        ("core", "from time import time"),
        ("core", "import os.path"),
        ("core", "from cacheproxy.edge.message import Peer"),
        ("edge", "from cacheproxy import registry"),
        ("store", "def f():\n    from cacheproxy.upstream import gate"),
        ("api", "import httpx"),
        ("api", "from cacheproxy.edge.body import send"),
        ("registry", "from cacheproxy.config import Config"),
        ("log.py", "from cacheproxy import app"),
    ],
)
def test_an_arrow_up_is_seen(floor: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / floor if floor.endswith(".py") else tmp_path / floor / "module.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    assert len(violations(path)) == 1
