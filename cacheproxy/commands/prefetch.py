"""Images that are here before anybody pulls them."""

from __future__ import annotations

import json
import platform as host
import re
import sys
import time
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file
from cacheproxy.commands.words import plural, size

PLATFORM = re.compile(r"[a-z0-9]+(/[a-z0-9_]+){1,2}")

LOOK_EVERY = 0.2
"""Seconds."""

MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "i686": "386",
    "loongarch64": "loong64",
}
"""What the kernel calls a machine, where images call it otherwise (Go's GOARCH)."""


def _platforms(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """What is no platform would not be noticed where an image has no index: it fits any."""
    for text in given:
        if text != "all" and not PLATFORM.fullmatch(text):
            raise click.BadParameter(f'{text}: write it as "linux/arm64", "linux/arm/v7" or "all"')
    return given


@click.command()
@click.argument("references", nargs=-1, required=True)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    callback=_platforms,
    help='"linux/arm64", more than once for more, or "all". Default: this host\'s.',
)
@config_file
@as_json
@click.pass_obj
def prefetch(
    load: Load, references: tuple[str, ...], platforms: tuple[str, ...], file: Path | None, machine: bool
) -> None:
    """Pull images into the cache. Ended with Ctrl-C, the daemon goes on."""
    daemon = Daemon.of(load(file))
    wanted = list(platforms) or [f"linux/{MACHINES.get(host.machine(), host.machine())}"]
    job = daemon.post("/prefetch", references=list(references), platforms=wanted)["job"]
    images = _follow(daemon, job, quiet=machine)
    if machine:
        click.echo(json.dumps(images, indent=2))
    if any(image["state"] == "failed" or image["uncached"] for image in images):
        sys.exit(1)


def _follow(daemon: Daemon, job: str, *, quiet: bool) -> Any:
    """Until the job has ended; a terminal sees how it goes."""
    moving = sys.stderr.isatty() and not quiet
    told = 0
    while True:
        images = daemon.get("/job", job=job)
        ended = [image for image in images if image["state"] in ("done", "failed")]
        for image in ended[told:]:
            _say(f"{_line(image)}\n", moving=moving, quiet=quiet)
        told = len(ended)
        if told == len(images):
            return images
        if moving:
            _say(_line(images[told]), moving=True, quiet=False)
        time.sleep(LOOK_EVERY)


def _say(text: str, *, moving: bool, quiet: bool) -> None:
    if not quiet:
        click.echo(f"\r\x1b[K{text}" if moving else text, nl=False, err=moving and not text.endswith("\n"))


def _line(image: Any) -> str:
    if image["state"] == "failed":
        return f"failed  {image['reference']}  {image['error']}"
    said = f"{size(image['held'])} of {size(image['size'])} in {plural(image['blobs'], 'blob')}"
    if image["uncached"]:
        blobs, trouble = plural(image["uncached"], "blob"), image["trouble"]
        said += f"; {blobs} not kept: {trouble}" if trouble else f"; no room for {blobs}"
    return f"{image['state']:7} {image['reference']}  {said}"
