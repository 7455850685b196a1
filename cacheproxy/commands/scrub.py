"""Whether what is stored is still what was stored."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file
from cacheproxy.commands.words import ago, plural, short, size

LOOK_EVERY = 0.2
"""Seconds."""


@click.command()
@click.argument("references", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that is stored.")
@click.option("--wait", is_flag=True, help="Until it is done; 1 is returned when something was damaged.")
@config_file
@as_json
@click.pass_obj
def scrub(
    load: Load, references: tuple[str, ...], everything: bool, wait: bool, file: Path | None, machine: bool
) -> None:
    """Read stored bytes and hash them, now: of images, or all. With neither, tell how the scrub is.

    What is damaged is set aside and fetched anew. The daemon does it, at the pace of cache.scrub, whether the
    command waits or not.
    """
    if everything and references:
        raise click.UsageError("--all are those images, too: name them, or all")
    daemon = Daemon.of(load(file))
    if not references and not everything:
        told = daemon.get("/scrub")
        _tell(told, machine)
        return
    began = daemon.post("/scrub", references=list(references))
    told = _follow(daemon, began, quiet=machine) if wait else began
    if machine:
        click.echo(json.dumps(told, indent=2))
    elif wait:
        click.echo(_result(began, told))
    else:
        click.echo(f"{_amount(began['asked'])} to be read; `cacheproxy scrub` tells how it goes")
    if wait and (told["stopped"] or told["damaged"] > began["damaged"]):
        sys.exit(1)


def _tell(told: Any, machine: bool) -> None:
    if machine:
        click.echo(json.dumps(told, indent=2))
        return
    for line in lines(told, time.time()):
        click.echo(line)


def lines(told: Any, now: float) -> Iterator[str]:
    if told["stopped"]:
        yield f"stopped, to be tried again soon: {told['stopped']}"
    elif told["running"]:
        yield f"{_amount(told['due'])} to be read, {_amount(told['asked'])} of it asked for"
    elif told["due"]["blobs"]:
        yield f"{_amount(told['due'])} due, to be read soon"
    else:
        yield "nothing is due"
    yield f"since the daemon started: {_amount(told['checked'])} sound, {told['damaged']} damaged"
    yield from damage(told["damage"], now)


def damage(found: Any, now: float) -> Iterator[str]:
    """What was found of late, by the scrub or by a reader."""
    if found:
        yield f"{plural(len(found), 'damaged blob')} found of late:"
    for item in found:
        kept = "; its bytes are kept aside" if item["kept"] else ""
        yield f"  {short(item['digest'])}  {item['found']}  {ago(item['noticed'], now)}{kept}"


def _follow(daemon: Daemon, began: Any, *, quiet: bool) -> Any:
    """Until nothing of what was asked for is left; a terminal sees how it goes."""
    moving = sys.stderr.isatty() and not quiet
    told = began
    while told["asked"]["blobs"] and not told["stopped"]:
        if moving:
            done = began["asked"]["bytes"] - told["asked"]["bytes"]
            said = f"{size(max(done, 0))} of {_amount(began['asked'])} read"
            click.echo(f"\r\x1b[K{said}", nl=False, err=True)
        time.sleep(LOOK_EVERY)
        told = daemon.get("/scrub")
    if moving:
        click.echo("\r\x1b[K", nl=False, err=True)
    return told


def _result(began: Any, told: Any) -> str:
    if told["stopped"]:
        return f"stopped, to be tried again soon: {told['stopped']}"
    damaged = told["damaged"] - began["damaged"]
    if damaged:
        return f"{_amount(began['asked'])} read: {damaged} damaged, set aside, fetched anew where possible"
    return f"{_amount(began['asked'])} read: all of it sound"


def _amount(left: Any) -> str:
    return f"{size(left['bytes'])} in {plural(left['blobs'], 'blob')}"
