"""The commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cacheproxy import __version__
from cacheproxy.commands.account import account
from cacheproxy.commands.check_config import check_config
from cacheproxy.commands.client_config import client_config
from cacheproxy.commands.doctor import doctor
from cacheproxy.commands.du import du
from cacheproxy.commands.events import events
from cacheproxy.commands.explain import explain
from cacheproxy.commands.exporting import export
from cacheproxy.commands.fsck import fsck
from cacheproxy.commands.gc import gc
from cacheproxy.commands.grant import explain_access, grant
from cacheproxy.commands.importing import import_
from cacheproxy.commands.pins import pin, unpin
from cacheproxy.commands.prefetch import prefetch
from cacheproxy.commands.purge import purge
from cacheproxy.commands.repositories import repository
from cacheproxy.commands.scrub import scrub
from cacheproxy.commands.status import status
from cacheproxy.commands.words import plural, told
from cacheproxy.groups import leaves

if TYPE_CHECKING:
    from cacheproxy.config import Config

DEFAULT_FILE = Path("/etc/cacheproxy/cacheproxy.toml")
"""Read when no other file is named and it exists; without any, everything has its default."""

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cacheproxy")
@click.pass_context
def main(context: click.Context) -> None:
    """A self-hosted container registry and pull-through cache."""
    context.obj = _load


COMMANDS = (
    *(check_config, status, explain, du, repository, purge, pin, unpin, prefetch),
    *(scrub, client_config, doctor, fsck, gc, account, events, grant, explain_access),
    *(export, import_),
)
for command in COMMANDS:
    main.add_command(command)


@main.command()
@click.option("--config", "file", type=FILE, help=f"Default: {DEFAULT_FILE} if there is one.")
def serve(file: Path | None) -> None:
    """Run the daemon."""
    config = _load(file)
    # Imported only here: the other commands start without the network stack.
    from cacheproxy import app
    from cacheproxy.edge.listeners import ListenError
    from cacheproxy.store.errors import StoreError
    from cacheproxy.wiring import CannotStart

    failures: list[BaseException] = []
    try:
        app.run(config)
    except* (OSError, ListenError, StoreError, CannotStart) as group:
        # What a person can mend is told in a line; anything else is a fault of ours, and keeps its traceback.
        failures.extend(leaves(group))
    for failure in failures:
        click.echo(f"cacheproxy: {told(failure)}", err=True)
    if failures:
        sys.exit(1)


def _load(file: Path | None) -> Config:
    from cacheproxy.config import ConfigError, load

    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    try:
        return load(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        click.echo(f"{plural(len(error.problems), 'problem')} in the configuration.", err=True)
        sys.exit(1)
