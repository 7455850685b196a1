"""What many commands take: the configuration's file, and JSON instead of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cacheproxy.config import Config

F = TypeVar("F", bound=Callable[..., Any])

Load = Callable[[Path | None], "Config"]
"""Reads the configuration, or ends the command with all that is wrong with it. Every context has it."""

FILE = click.Path(dir_okay=False, path_type=Path)


def config_file(command: F) -> F:
    return click.option("--config", "file", type=FILE, help="The daemon's configuration.")(command)


def as_json(command: F) -> F:
    return click.option("--json", "machine", is_flag=True, help="JSON, for programs.")(command)


def report(value: Any, machine: bool, lines: Callable[[Any], Iterable[str]]) -> None:
    """The value itself, or what `lines` says of it to a person."""
    if machine:
        click.echo(json.dumps(value, indent=2))
        return
    for line in lines(value):
        click.echo(line)
