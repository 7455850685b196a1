"""Hosted repositories: what there is, and what is set for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import size, table
from cacheproxy.core.units import parse_size

F = TypeVar("F", bound=Callable[..., Any])

NO_LIMIT = "none"
LIMITS = frozenset({"quota_bytes", "quota_images"})


class Quota(click.ParamType[Any]):
    """A number, or none."""

    name = "quota"

    def __init__(self, number: Callable[[str], int]) -> None:
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if value == NO_LIMIT:
            return value
        try:
            return self._number(value)
        except ValueError as error:
            self.fail(f"{error}; or {NO_LIMIT}", param, context)


OPTIONS = (
    click.option("--tags", type=click.Choice(["mutable", "immutable"]), help="Whether tags may move."),
    click.option("--except-tags", multiple=True, metavar="PATTERN", help="Tags that are the opposite."),
    click.option("--quota", type=Quota(parse_size), metavar="SIZE", help='Of all blobs, "50GiB"; or none.'),
    click.option("--quota-images", type=Quota(int), metavar="COUNT", help="Of images; or none."),
    click.option("--sparse", type=click.Choice(["nothing", "indexes", "images"]), help="What may lack parts"),
    click.option("--description"),
    click.option("--label", multiple=True, metavar="KEY=VALUE", help="KEY= takes one away."),
)


def settings(command: F) -> F:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.group()
def repository() -> None:
    """Hosted repositories: list, create, set, rename, delete."""


@repository.command("list")
@config_file
@as_json
@click.pass_obj
def list_(load: Load, file: Path | None, machine: bool) -> None:
    """What there is, and how much is in it."""
    report(Daemon.of(load(file)).get("/repositories"), machine, lines)


@repository.command()
@click.argument("name")
@settings
@config_file
@click.pass_obj
def create(load: Load, /, name: str, file: Path | None, **given: Any) -> None:
    """Make one, so that it need not be born by a push."""
    told = Daemon.of(load(file)).post("/repositories/create", name=name, settings=wanted(**given))
    click.echo(f"created {told['name']}")


@repository.command("set")
@click.argument("name")
@settings
@config_file
@click.pass_obj
def set_(load: Load, /, name: str, file: Path | None, **given: Any) -> None:
    """Change what is set for one; what is not named stays."""
    Daemon.of(load(file)).post("/repositories/set", name=name, settings=wanted(**given))
    click.echo(f"set {name}")


@repository.command()
@click.argument("name")
@click.argument("new")
@config_file
@click.pass_obj
def rename(load: Load, name: str, new: str, file: Path | None) -> None:
    """Give one another name; from then on it has no other."""
    Daemon.of(load(file)).post("/repositories/rename", name=name, new=new)
    click.echo(f"{name} is now {new}")


@repository.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also with images in it.")
@config_file
@click.pass_obj
def delete(load: Load, name: str, force: bool, file: Path | None) -> None:
    """Take one away, with all that is in it."""
    Daemon.of(load(file)).post("/repositories/delete", name=name, force=force)
    click.echo(f"deleted {name}")


def wanted(
    tags: str | None,
    except_tags: tuple[str, ...],
    label: tuple[str, ...],
    **plain: Any,
) -> dict[str, Any]:
    """The settings that were named (core.settings.Settings). `--tags` alone has no exceptions."""
    named = {key: value for key, value in plain.items() if value is not None}
    if "quota" in named:
        named["quota_bytes"] = named.pop("quota")
    named = {key: None if value == NO_LIMIT and key in LIMITS else value for key, value in named.items()}
    if tags is not None:
        named |= {"immutable": tags == "immutable", "except_tags": []}
    if except_tags:
        named["except_tags"] = list(except_tags)
    if label:
        named["labels"] = dict(text.partition("=")[::2] for text in label)
    return named


def lines(kept: Any) -> Iterator[str]:
    if not kept:
        yield "no repository is hosted"
        return
    head = ("BYTES", "OF", "IMAGES", "OF", "TAGS", "REPOSITORY", "")
    rows = (_line(each, each["settings"]) for each in kept)
    yield from table([head, *rows], right=frozenset({0, 1, 2, 3}))


def _line(kept: Any, said: Any) -> tuple[str, ...]:
    quota = said.get("quota_bytes")
    return (
        size(kept["bytes"]),
        "" if quota is None else size(quota),
        str(kept["images"]),
        str(said.get("quota_images") or ""),
        _mutability(said),
        kept["name"],
        said.get("description", ""),
    )


def _mutability(said: Any) -> str:
    word = "immutable" if said.get("immutable") else "mutable"
    excepted = said.get("except_tags")
    return f"{word} but {' '.join(excepted)}" if excepted else word
