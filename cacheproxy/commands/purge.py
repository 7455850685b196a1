"""Images that are to be gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import plural, short, size


@click.command()
@click.argument("reference")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@config_file
@as_json
@click.pass_obj
def purge(load: Load, reference: str, dry_run: bool, file: Path | None, machine: bool) -> None:
    """Remove an image (NAME:TAG, NAME@DIGEST) or a repository (NAME), with the bytes that only it needs."""
    told = Daemon.of(load(file)).post("/purge", reference=reference, dry_run=dry_run)
    report(told, machine, lambda value: lines(value, dry_run=dry_run))


def lines(told: Any, *, dry_run: bool) -> Iterator[str]:
    verb = "would remove" if dry_run else "removed"
    tags, images = told["tags"], told["images"]
    yield (
        f"{told['repository']}: {verb} {plural(len(tags), 'tag')}, {plural(len(images), 'image')}"
        f" and {size(told['bytes'])} in {plural(told['blobs'], 'blob')}"
    )
    if tags:
        yield f"  tags: {', '.join(tags)}"
    if images:
        yield f"  images: {', '.join(map(short, images))}"
    if told["staying"]:
        yield f"  {size(told['staying'])} stay: other images have them too"
