"""Events on their way to webhooks: what waits, what was given up, and what to do about that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import day, plural, span, table

SINK = click.option("--sink", metavar="NAME", help="Only of this webhook.")


@click.group()
def events() -> None:
    """Events for webhooks: how each is doing, what waits, what was given up."""


@events.command()
@config_file
@as_json
@click.pass_obj
def status(load: Load, file: Path | None, machine: bool) -> None:
    """How each webhook is doing."""
    report(Daemon.of(load(file)).get("/webhooks"), machine, conditions)


@events.command("list")
@SINK
@click.option("--dead", is_flag=True, help="Those that were given up.")
@config_file
@as_json
@click.pass_obj
def list_(load: Load, sink: str | None, dead: bool, file: Path | None, machine: bool) -> None:
    """The first thousand that wait, or that were given up."""
    asked = {key: value for key, value in (("sink", sink), ("dead", "1" if dead else None)) if value}
    report(Daemon.of(load(file)).get(f"/events?{urlencode(asked)}"), machine, lines)


@events.command()
@SINK
@click.argument("event", required=False)
@config_file
@click.pass_obj
def replay(load: Load, sink: str | None, event: str | None, file: Path | None) -> None:
    """Send what was given up again: the EVENT of this id, or all."""
    told = Daemon.of(load(file)).post("/events/replay", sink=sink, event=event)
    click.echo(f"{plural(told['events'], 'event')} will be sent again")


@events.command()
@SINK
@click.option("--waiting", is_flag=True, help="Also what waits.")
@click.argument("event", required=False)
@config_file
@click.pass_obj
def drop(load: Load, sink: str | None, waiting: bool, event: str | None, file: Path | None) -> None:
    """Forget what was given up: the EVENT of this id, or all."""
    told = Daemon.of(load(file)).post("/events/drop", sink=sink, event=event, waiting=waiting)
    click.echo(f"{plural(told['events'], 'event')} forgotten")


@events.command()
@click.argument("sink")
@config_file
@click.pass_obj
def resume(load: Load, sink: str, file: Path | None) -> None:
    """Try a webhook at once that is left alone for a while, or that said it wants no more."""
    Daemon.of(load(file)).post("/events/resume", sink=sink)
    click.echo(f"{sink} is tried again")


def conditions(sinks: Any) -> Iterator[str]:
    if not sinks:
        yield "no webhook is configured"
        return
    head = ("WEBHOOK", "WAITING", "OLDEST", "GIVEN UP", "STATE")
    yield from table([head, *map(_condition, sinks)], right=frozenset({1, 3}))


def _condition(sink: Any) -> tuple[str, ...]:
    oldest = f"{span(time.time() - sink['oldest'])}" if sink["oldest"] else "-"
    return sink["sink"], str(sink["waiting"]), oldest, str(sink["dead"]), state(sink)


def state(sink: Any) -> str:
    if not sink["configured"]:
        return "is not configured any more"
    if sink["gone"]:
        return f"wants no more ({sink['failing']})"
    word = "stuck" if sink["stuck"] else "failing" if sink["failing"] else "ok"
    return f"{word} ({sink['failing']})" if sink["failing"] else word


def lines(listed: Any) -> Iterator[str]:
    if not listed:
        yield "none"
        return
    yield from table(map(_row, listed))


def _row(each: Any) -> tuple[str, ...]:
    event = each["event"]
    what = event["repository"]
    if event.get("tag"):
        what += f":{event['tag']}"
    elif event.get("digest"):
        what += f"@{event['digest']}"
    return each["id"], each["sink"], day(event["at"]), event["kind"], what, each["error"]
