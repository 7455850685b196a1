"""Pairs of access keys, for programs that sign what they ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import day, table


@click.group(name="access-key")
def access_key() -> None:
    """Pairs of an id and a secret, with which programs sign requests (AWS Signature Version 4)."""


@access_key.command()
@click.argument("account")
@config_file
@click.pass_obj
def add(load: Load, account: str, file: Path | None) -> None:
    """Make a pair for ACCOUNT, and print it as ~/.aws/credentials has it: its secret is shown this once."""
    made = Daemon.of(load(file)).post("/access-key", account=account)
    click.echo(f"aws_access_key_id = {made['id']}\naws_secret_access_key = {made['secret']}")


@access_key.command()
@click.argument("key_id", metavar="ID")
@config_file
@click.pass_obj
def revoke(load: Load, key_id: str, file: Path | None) -> None:
    """End a pair, on all nodes within a minute."""
    Daemon.of(load(file)).post("/access-key/revoke", id=key_id)
    click.echo(f"{key_id} is revoked; it ends within a minute")


@access_key.command(name="list")
@config_file
@as_json
@click.pass_obj
def listed(load: Load, file: Path | None, machine: bool) -> None:
    """All pairs, without their secrets: the configuration's, and those by command."""
    known = Daemon.of(load(file)).get("/access-keys")
    report(known, machine, lambda rows: table(map(_row, rows)) or ["there is no access key"])


def _row(known: dict[str, Any]) -> tuple[str, str, str]:
    since = "by the configuration" if known["created"] is None else f"since {day(known['created'])}"
    return known["id"], known["account"], since
