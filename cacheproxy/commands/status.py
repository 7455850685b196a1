"""How the daemon and its upstreams are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.events import state
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.scrub import damage
from cacheproxy.commands.words import plural, short, size, span, table

OUTCOMES = ("hit", "miss", "coalesced", "stale", "negative", "bypass")


@click.command()
@config_file
@as_json
@click.pass_obj
def status(load: Load, file: Path | None, machine: bool) -> None:
    """Upstreams and how well they answer, requests, running downloads, space."""
    daemon = Daemon.of(load(file))
    report({**daemon.get("/status"), "webhooks": daemon.get("/webhooks")}, machine, lines)


def lines(told: Any) -> Iterator[str]:
    condition, requests = told["condition"], told["requests"]
    yield f"up {span(condition['uptime'])}; {_space(condition)}"
    upstreams = condition["upstreams"]
    header = ("UPSTREAM", "STATE", "LAST ANSWER", *map(str.upper, OUTCOMES))
    yield from table(
        [header, *(row for upstream in upstreams for row in _rows(upstream, requests))],
        right=frozenset(range(3, len(header))),
    )
    fills = condition["fills"]
    if fills:
        yield f"{plural(len(fills), 'download')} running:"
    for fill in fills:
        yield f"  {short(fill['digest'])}  {size(fill['held'])} of {size(fill['size'])}"
    if condition["sweep_stopped"]:
        yield condition["sweep_stopped"]
    yield from damage(told["damage"], time.time())
    for sink in told["webhooks"]:
        if sink["stuck"] or sink["dead"]:
            counts = f"{sink['waiting']} wait, {sink['dead']} were given up"
            yield f"webhook {sink['sink']}: {state(sink)}; {counts}"


def _space(condition: Any) -> str:
    budget, free = condition["budget"], condition["free"]
    cached = size(condition["cached"])
    if budget:
        cached += f" of {size(budget)} ({condition['cached'] / budget:.0%})"
    disk = "" if free is None else f"; {size(free)} of the disk's {size(condition['total'])} free"
    return f"{cached} cached{disk}"


def _rows(upstream: Any, requests: Any) -> Iterator[tuple[str, ...]]:
    """One for the upstream's address, with what clients asked; one for each mirror."""
    counted = requests.get(upstream["upstream"], {})
    own, *mirrors = upstream["hosts"]
    yield upstream["upstream"], _state(own), _last(own), *(str(counted.get(word, 0)) for word in OUTCOMES)
    for mirror in mirrors:
        yield f"  {mirror['host']}", _state(mirror), _last(mirror), *("" for _ in OUTCOMES)


def _state(host: Any) -> str:
    if host["left_alone"]:
        return f"left alone ({host['failing']})"
    if host["failing"]:
        return f"failing ({host['failing']})"
    return "ok" if host["answered_ago"] is not None else "not asked yet"


def _last(host: Any) -> str:
    return "-" if host["answered_ago"] is None else f"{span(host['answered_ago'])} ago"
