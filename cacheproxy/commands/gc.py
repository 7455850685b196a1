"""What hosted repositories need no more."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import ago, plural, size

LOOK_EVERY = 0.2
"""Seconds."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--anyway", is_flag=True, help="Also much at once, and after the clock was set.")
@config_file
@as_json
@click.pass_obj
def gc(load: Load, dry_run: bool, anyway: bool, file: Path | None, machine: bool) -> None:
    """Collect what hosted repositories need no more, now. The daemon does it by itself, every minute.

    Blobs that no image names, and images whose index or subject was deleted, a day after. 1 is returned when
    the collection stopped: it says why.
    """
    daemon = Daemon.of(load(file))
    told = daemon.post("/gc", dry_run=dry_run, anyway=anyway)
    told = _follow(daemon, told, quiet=machine)
    report(told, machine, lambda value: lines(value, time.time()))
    if told["stopped"]:
        sys.exit(1)


def lines(told: Any, now: float) -> Iterator[str]:
    yield f"{'removed' if told['earnest'] else 'would remove'} {_amount(told['swept'])}"
    if told["stopped"]:
        yield f"stopped: {told['stopped']}"
    elif told["state"]["stopped"]:
        yield f"the collection has stopped: {told['state']['stopped']}"
    backlog = told["state"]["backlog"]
    if backlog["items"]:
        yield f"{plural(backlog['items'], 'item')} due, the first since {ago(backlog['oldest'], now)}"


def _follow(daemon: Daemon, told: Any, *, quiet: bool) -> Any:
    """To the end of the pass; a terminal sees how it goes."""
    moving = sys.stderr.isatty() and not quiet
    while told["running"]:
        if moving:
            click.echo(f"\r\x1b[K{_amount(told['swept'])}", nl=False, err=True)
        time.sleep(LOOK_EVERY)
        told = daemon.get("/gc", number=str(told["number"]))
    if moving:
        click.echo("\r\x1b[K", nl=False, err=True)
    return told


def _amount(swept: Any) -> str:
    blobs = f"{size(swept['bytes'])} in {plural(swept['blobs'], 'blob')}"
    return f"{plural(swept['images'], 'image')} and {blobs}"
