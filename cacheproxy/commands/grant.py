"""Rights beside those of the configuration: given, listed and taken away while the daemon runs; and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import day, table


@click.group()
def grant() -> None:
    """Rights beside those of the configuration: given and taken away in the running daemon.

    They are in force at once, on other nodes over the same database within a minute. What the configuration
    gives, in [[grant]], is listed too, and only changed there.
    """


@grant.command()
@click.argument("to", nargs=-1, required=True)
@click.option("--allow", metavar="RIGHTS", help='What they may, as "pull,push".')
@click.option("--deny", metavar="RIGHTS", help="What they may not, whatever else allows it.")
@click.option(
    "--repositories", "-r", metavar="PATTERN", multiple=True, help='Where, as "team/**"; several times.'
)
@click.option("--network", "networks", multiple=True, help='From where only, as "10.0.0.0/8"; several times.')
@config_file
@click.pass_obj
def add(
    load: Load,
    to: tuple[str, ...],
    allow: str | None,
    deny: str | None,
    repositories: tuple[str, ...],
    networks: tuple[str, ...],
    file: Path | None,
) -> None:
    """Allow or deny rights to TO: "user:NAME", "group:NAME", "*" for everyone who has a name, "anonymous".

    Rights are pull, push, delete, list, create and admin.
    """
    if (allow is None) == (deny is None):
        raise click.UsageError("needs either --allow or --deny")
    said = Daemon.of(load(file)).post(
        "/grant",
        to=to,
        rights=_words(allow or deny or ""),
        repositories=repositories,
        networks=networks,
        deny=deny is not None,
    )
    click.echo(f"grant {said['grant']} is in force")


@grant.command()
@click.argument("number")
@config_file
@click.pass_obj
def remove(load: Load, number: str, file: Path | None) -> None:
    """Take a grant away, by its number in `cacheproxy grant list`."""
    Daemon.of(load(file)).post("/grant/remove", grant=number)
    click.echo(f"grant {number} is gone")


@grant.command(name="list")
@config_file
@as_json
@click.pass_obj
def listed(load: Load, file: Path | None, machine: bool) -> None:
    """All grants: those of the configuration, by where they stand, and those by command, by their number."""
    known = Daemon.of(load(file)).get("/grants")
    report(known, machine, lambda rows: table(map(_row, rows)) or ["there is no grant"])


@click.command(name="explain-access")
@click.argument("account")
@click.argument("repository")
@click.option(
    "--from", "address", metavar="ADDRESS", help="As if it came from there; default: from this host."
)
@click.option("--group", "groups", multiple=True, help='Of one that has no account here, as "ci:team/app".')
@config_file
@as_json
@click.pass_obj
def explain_access(
    load: Load,
    account: str,
    repository: str,
    address: str | None,
    groups: tuple[str, ...],
    file: Path | None,
    machine: bool,
) -> None:
    """What ACCOUNT (or "anonymous") may do in REPOSITORY, and which rules say so."""
    query = {"account": account, "repository": repository, "address": address or "", "group": groups}
    report(Daemon.of(load(file)).get("/access", **query), machine, _explained)


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _row(known: dict[str, Any]) -> tuple[str, ...]:
    since = "by the configuration" if known["managed"] else f"since {day(known['created'])}"
    return known["grant"], *_rule(known), since


def _rule(known: dict[str, Any]) -> tuple[str, str]:
    """Who, and what where."""
    word = "deny" if "deny" in known else "allow"
    where = " ".join(known["repositories"])
    networks = f" from {' '.join(known['networks'])}" if known["networks"] else ""
    return " ".join(known["to"]), f"{word} {','.join(known[word])} in {where}{networks}"


def _explained(told: dict[str, Any]) -> Iterator[str]:
    groups = f" ({' '.join(f'group:{group}' for group in told['groups'])})" if told["groups"] else ""
    for each in told["repositories"]:
        rights = ", ".join(each["rights"]) or "nothing"
        yield f"{told['account']}{groups} may in {each['repository']}: {rights}"
        yield from (f"  {line}" for line in table(map(_reason, each["because"])))
        if not each["because"]:
            yield "  no rule says anything of it"


def _reason(rule: dict[str, Any]) -> tuple[str, ...]:
    if "to" not in rule:
        return rule["rule"], "everybody there", f"allow {','.join(rule['allow'])}"
    return rule["rule"], *_rule(rule)
