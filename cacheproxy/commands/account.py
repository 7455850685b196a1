"""Accounts beside those of the configuration: for robots that come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.access_key import access_key
from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.resetkeys import reset_keys
from cacheproxy.commands.words import day, table
from cacheproxy.core.units import parse_duration


@click.group()
def account() -> None:
    """Accounts that come and go: made, listed and revoked in the running daemon.

    What they may do the configuration says, in [[grant]]: to = ["user:NAME"] or ["group:GROUP"].
    """


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@account.command()
@click.argument("name")
@click.option("--group", "groups", multiple=True, help="One of its groups; may be given several times.")
@click.option("--for", "seconds", callback=_duration, help='How long it lives, as "90d"; default: for ever.')
@config_file
@click.pass_obj
def add(load: Load, name: str, groups: tuple[str, ...], seconds: float | None, file: Path | None) -> None:
    """Make an account, and print its secret, which is nowhere else."""
    daemon = Daemon.of(load(file))
    click.echo(daemon.post("/account", name=name, groups=groups, seconds=seconds)["secret"])
    click.echo(f"{name} logs in with this secret; in grants it is user:{name}", err=True)


@account.command()
@click.argument("name")
@config_file
@click.pass_obj
def revoke(load: Load, name: str, file: Path | None) -> None:
    """End an account. What it has in hand works for another minute at most."""
    Daemon.of(load(file)).post("/account/revoke", name=name)
    click.echo(f"{name} is revoked; it ends within a minute")


@account.command(name="list")
@config_file
@as_json
@click.pass_obj
def listed(load: Load, file: Path | None, machine: bool) -> None:
    """What accounts commands made."""
    known = Daemon.of(load(file)).get("/accounts")
    report(known, machine, lambda rows: table(map(_row, rows)) or ["no account was made by command"])


account.add_command(reset_keys)
account.add_command(access_key)


def _row(known: dict[str, Any]) -> tuple[str, str, str, str]:
    said = "expired" if known["expired"] else "until"
    ends = "for ever" if known["expires"] is None else f"{said} {day(known['expires'])}"
    return known["name"], " ".join(known["groups"]), f"since {day(known['created'])}", ends
