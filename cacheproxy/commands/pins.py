"""Images that are never evicted."""

from __future__ import annotations

from pathlib import Path

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import table


@click.command()
@click.argument("reference", required=False)
@config_file
@as_json
@click.pass_obj
def pin(load: Load, reference: str | None, file: Path | None, machine: bool) -> None:
    """Keep an image whatever space is needed; without one, list what is kept.

    A tag holds what it means at the time, an index all of its images that are here.
    """
    daemon = Daemon.of(load(file))
    if reference is None:
        pins = [(pin["repository"], pin["reference"]) for pin in daemon.get("/pins")]
        report(pins, machine, lambda rows: table(rows) or ["nothing is pinned"])
    else:
        told = daemon.post("/pin", reference=reference)
        report(told, machine, lambda pin: [f"pinned {pin['reference']} of {pin['repository']}"])


@click.command()
@click.argument("reference")
@config_file
@click.pass_obj
def unpin(load: Load, reference: str, file: Path | None) -> None:
    """Let an image go when space is needed, as any other."""
    told = Daemon.of(load(file)).post("/unpin", reference=reference)
    click.echo(f"{told['reference']} of {told['repository']} is no longer pinned")
