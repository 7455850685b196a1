"""`cacheproxy check-config`: what a configuration means, what it would change, and its schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial as bind
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import FILE, Load, as_json, report
from cacheproxy.commands.words import plural

if TYPE_CHECKING:
    from cacheproxy.config import Config


@click.command("check-config")
@click.argument("file", type=FILE, required=False)
@click.option(
    "--against", metavar="OLD", type=FILE, help="Say what FILE changes, key by key, compared with OLD."
)
@click.option(
    "--running", is_flag=True, help="Say what a reload (SIGHUP) would change in the running daemon."
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of the file, for editors.")
@as_json
@click.pass_obj
def check_config(
    load: Load, file: Path | None, against: Path | None, running: bool, schema: bool, machine: bool
) -> None:
    """Say what a configuration means, or everything that is wrong with it and the files that it names."""
    if schema:
        from cacheproxy.config import schema as editors

        click.echo(json.dumps(editors.schema(), indent=2))
        return
    config = load(file)
    if running:
        said, lines = Daemon.of(config).get("/reload"), _reload
    elif against is not None:
        said, lines = _difference(load(against), config), _changed
    else:
        said, lines = _tried(config), bind(_summary, config)
    report(said, machine, lines)
    _end(said["problems"], quiet=machine)


def _end(problems: Sequence[str], *, quiet: bool) -> None:
    if not problems:
        return
    for line in () if quiet else (*problems, f"{plural(len(problems), 'problem')}."):
        click.echo(line, err=True)
    sys.exit(1)


def _tried(config: Config) -> dict[str, Any]:
    # Imported only here: --schema and --against start without the network stack.
    import trio

    from cacheproxy.trial import tried

    return {"file": _name(config), **trio.run(tried, config)._asdict()}


def _difference(old: Config, new: Config) -> dict[str, Any]:
    """As the daemon says it of a reload."""
    from cacheproxy.config.changes import changes

    found = [{"text": str(change), "live": change.live} for change in changes(old, new)]
    return {"file": _name(new), "problems": [], "warnings": [], "changes": found}


def _name(config: Config) -> str | None:
    return None if config.file is None else str(config.file)


def _reload(said: Any) -> list[str]:
    title = f"the daemon would read {said['file'] or 'no file: defaults'}"
    if said["problems"]:
        return [f"{title}, and stay as it is:", *_warned(said)]
    return [title, *_changed(said)]


def _changed(said: Any) -> list[str]:
    return [*_lines(said["changes"]), *_warned(said)]


def _warned(said: Any) -> Iterator[str]:
    return (f"warning: {warning}" for warning in said["warnings"])


def _lines(changes: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not changes:
        yield "nothing changes"
    for title, live in (("with a reload (SIGHUP):", True), ("with a restart only:", False)):
        lines = [f"  {change['text']}" for change in changes if change["live"] == live]
        yield from [title, *lines] if lines else []


def _summary(config: Config, said: Any) -> list[str]:
    found = "reads well; what it names does not" if said["problems"] else "OK"
    lines = [
        f"{config.file or 'no configuration file: defaults'}: {found}",
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
    return [*lines, *_warned(said)]
