"""`cacheproxy check-config`: what a configuration means, what it would change, and its schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import FILE, Load
from cacheproxy.commands.words import plural

if TYPE_CHECKING:
    from cacheproxy.config import Config
    from cacheproxy.trial import Tried


@click.command("check-config")
@click.argument("file", type=FILE, required=False)
@click.option(
    "--against", metavar="OLD", type=FILE, help="Say what FILE changes, key by key, compared with OLD."
)
@click.option(
    "--running", is_flag=True, help="Say what a reload (SIGHUP) would change in the running daemon."
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of the file, for editors.")
@click.pass_obj
def check_config(load: Load, file: Path | None, against: Path | None, running: bool, schema: bool) -> None:
    """Say what a configuration means, or everything that is wrong with it and the files that it names."""
    if schema:
        from cacheproxy.config import schema as editors

        click.echo(json.dumps(editors.schema(), indent=2))
        return
    config = load(file)
    if running:
        _say(*_reload(Daemon.of(config).get("/reload")))
    elif against is not None:
        _say(_difference(load(against), config), [], [])
    else:
        _say(_summary(config), *_try(config))


def _say(lines: Iterable[str], problems: Sequence[str], warnings: Iterable[str]) -> None:
    for line in (*lines, *(f"warning: {warning}" for warning in warnings)):
        click.echo(line)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        click.echo(f"{plural(len(problems), 'problem')}.", err=True)
        sys.exit(1)


def _try(config: Config) -> Tried:
    # Imported only here: --schema and --against start without the network stack.
    import trio

    from cacheproxy.trial import tried

    return trio.run(tried, config)


def _reload(said: Any) -> tuple[list[str], list[str], list[str]]:
    title = f"the daemon would read {said['file'] or 'no file: defaults'}"
    if said["problems"]:
        return [f"{title}, and stay as it is:"], said["problems"], said["warnings"]
    return [title, *_lines(said["changes"])], [], said["warnings"]


def _difference(old: Config, new: Config) -> Iterator[str]:
    from cacheproxy.config.changes import changes

    return _lines([{"text": str(change), "live": change.live} for change in changes(old, new)])


def _lines(changes: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not changes:
        yield "nothing changes"
    for title, live in (("with a reload (SIGHUP):", True), ("with a restart only:", False)):
        lines = [f"  {change['text']}" for change in changes if change["live"] == live]
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
