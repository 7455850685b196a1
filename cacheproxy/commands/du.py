"""What the store's bytes are for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import plural, size, table


@click.command()
@config_file
@as_json
@click.pass_obj
def du(load: Load, file: Path | None, machine: bool) -> None:
    """Bytes and images, by upstream and repository."""
    report(Daemon.of(load(file)).get("/use"), machine, lines)


def lines(use: Any) -> Iterator[str]:
    rows = [("BYTES", "IMAGES", "BLOBS", "REPOSITORY")]
    for upstream, repositories in groupby(use["repositories"], key=lambda row: row["upstream"]):
        held = list(repositories)
        images = str(sum(row["images"] for row in held))
        rows.append((size(use["upstreams"].get(upstream, 0)), images, "", f"{upstream} (all)"))
        rows += [
            (size(row["bytes"]), str(row["images"]), str(row["blobs"]), f"  {row['repository']}")
            for row in sorted(held, key=lambda row: -row["bytes"])
        ]
    yield from table(rows, right=frozenset({0, 1, 2}))
    yield f"{size(use['bytes'])} in {plural(use['blobs'], 'blob')} stored"
    shared = sum(row["bytes"] for row in use["repositories"]) - use["bytes"]
    if shared > 0:
        yield (
            f"{size(shared)} are in more than one repository: counted in each of them,"
            " once for the upstream and once in all"
        )
