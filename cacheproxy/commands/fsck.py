"""Whether rows and bytes are what they should be."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import plural, size

FOUND, FAILED = 1, 2
"""How it ends: with findings, or without having looked."""


@click.command()
@config_file
@click.option("--deep", is_flag=True, help="Read and hash all that is stored.")
@click.option("--repair", is_flag=True, help="Do what can do no harm; the daemon has to be stopped.")
@as_json
@click.pass_obj
def fsck(load: Load, file: Path | None, deep: bool, repair: bool, machine: bool) -> None:
    """Look whether rows and bytes are what they should be. Ends with 1 if they are not, with 2 if it could
    not look.

    Nothing is changed without --repair. Beside a running daemon what is younger than an hour counts as being
    under way.
    """
    from cacheproxy.commands.examination import CannotLook, examine

    try:
        config = load(file)
    except SystemExit:
        sys.exit(FAILED)
    try:
        examined = examine(config, deep=deep, repair=repair, progress=_progress())
    except CannotLook as error:
        click.echo(f"cacheproxy fsck: {error}", err=True)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        click.echo("cacheproxy fsck: interrupted", err=True)
        sys.exit(FAILED)
    except Exception:  # noqa: BLE001 - a fault of ours, which is no finding
        traceback.print_exc()
        sys.exit(FAILED)
    report(examined, machine, lines)
    if any(not finding["repaired"] for finding in examined["findings"]):
        sys.exit(FOUND)


def _progress() -> Any:
    """Says how far it is, to a person who waits."""
    if not sys.stderr.isatty():
        return lambda share: None
    return lambda share: click.echo(f"\r\x1b[K{share:.0%} " if share < 1 else "\r\x1b[K", nl=False, err=True)


def lines(examined: Any) -> Iterator[str]:
    for finding in examined["findings"]:
        yield f"{finding['invariant']}  {finding['where']}: {finding['what']}"
        yield "    repaired" if finding["repaired"] else f"    -> {finding['advice']}"
    seen = examined["seen"]
    hashed = f", {size(seen['hashed'])} hashed" if examined["deep"] else ""
    looked = f"{plural(seen['images'], 'image')}, {plural(seen['blobs'], 'stored blob')}"
    yield f"{looked}, {plural(seen['files'], 'file')}{hashed}: {plural(len(examined['findings']), 'finding')}"
