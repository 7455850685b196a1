"""`cacheproxy check-config`: what a configuration means, what it would change, and its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cacheproxy.commands.options import FILE, Load

if TYPE_CHECKING:
    from cacheproxy.config import Config


@click.command("check-config")
@click.argument("file", type=FILE, required=False)
@click.option(
    "--against", metavar="OLD", type=FILE, help="Say what FILE changes, key by key, compared with OLD."
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of the file, for editors.")
@click.pass_obj
def check_config(load: Load, file: Path | None, against: Path | None, schema: bool) -> None:
    """Say what a configuration means, or everything that is wrong with it."""
    if schema:
        from cacheproxy.config import schema as editors

        click.echo(json.dumps(editors.schema(), indent=2))
        return
    config = load(file)
    lines = _summary(config) if against is None else _difference(load(against), config)
    for line in lines:
        click.echo(line)


def _difference(old: Config, new: Config) -> Iterator[str]:
    from cacheproxy.config.changes import changes

    found = changes(old, new)
    if not found:
        yield "nothing changes"
    for title, live in (("with a reload (SIGHUP):", True), ("with a restart only:", False)):
        lines = [f"  {change}" for change in found if change.live == live]
        yield from [title, *lines] if lines else []


def _summary(config: Config) -> list[str]:
    lines = [
        f"{config.file or 'no configuration file: defaults'}: OK",
        f"clients connect to {', '.join(config.server.listen)}; metrics at {config.server.metrics}",
        f"state in {config.storage.state}; blobs in {config.storage.blobs}",
        "upstreams:",
    ]
    width = max(len(upstream.registry) for upstream in config.upstreams)
    for upstream in config.upstreams:
        names = [f"/v2/{name}/" for name in dict.fromkeys((upstream.registry, upstream.prefix))]
        if upstream.default:
            names.append("bare names")
        lines.append(f"  {upstream.registry:{width}}  {upstream.url}  {', '.join([*names, *upstream.hosts])}")
    return lines
