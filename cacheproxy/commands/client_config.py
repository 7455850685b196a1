"""Clients that pull through the cache: their files, printed, written, proven, undone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from cacheproxy.commands.clients.authority import NoAuthority, certificates, self_signed
from cacheproxy.commands.clients.files import CannotWrite, Files
from cacheproxy.commands.clients.tools import TOOLS, Cache, CannotMerge
from cacheproxy.commands.options import Load, config_file

if TYPE_CHECKING:
    from cacheproxy.config import Config

ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - no client can connect to these
CHECKED = "docker.io/library/alpine:latest"


@click.command("client-config")
@click.argument("tool", type=click.Choice(list(TOOLS)))
@click.option(
    "--write", "do", flag_value="write", help="Write the files; what was there is kept beside them."
)
@click.option("--check", "do", flag_value="check", help="Ask for an image as the tool would, by its files.")
@click.option("--undo", "do", flag_value="undo", help="Put back what was there before --write.")
@click.option("--url", help="The cache as the clients see it. Default: by the configuration.")
@click.option(
    "--ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Who signed the cache's certificate, as PEM. Default: what of [server] tls is signed by itself.",
)
@click.option("--image", "images", multiple=True, help=f"What --check asks for. Default: {CHECKED}.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    help="Where the tool's /etc is. Default: /.",
)
@config_file
@click.pass_obj
def client_config(
    load: Load,
    tool: str,
    do: str | None,
    url: str | None,
    ca: Path | None,
    images: tuple[str, ...],
    root: Path,
    file: Path | None,
) -> None:
    """Print what a tool's files must say so that it pulls through the cache; write, prove or undo it."""
    if do == "undo":
        _undo(tool, root)
    elif do == "check":
        _check(tool, root, images or (CHECKED,))
    else:
        cache = _cache(load(file), url, ca)
        _write(tool, root, cache) if do == "write" else _print(tool, cache)


def _cache(config: Config, given: str | None, ca: Path | None) -> Cache:
    bare = next((upstream.registry for upstream in config.upstreams if upstream.default), None)
    registries = dict.fromkeys(upstream.registry for upstream in config.upstreams)
    url = _url(config, given)
    return Cache(url, tuple(registries), bare, _authority(config, url, ca))


def _authority(config: Config, url: str, ca: Path | None) -> str | None:
    """PEM of whom clients have to trust; None: nobody whom their system does not trust already."""
    secure, tls = urlsplit(url).scheme == "https", config.server.tls
    if ca is not None and not secure:
        raise click.ClickException(f"--ca: there is nothing to trust at {url}")
    try:
        if ca is not None:
            return certificates(ca)
        return self_signed(tls.certificate) if secure and tls is not None else None
    except NoAuthority as error:
        raise click.ClickException(str(error)) from error


def _url(config: Config, given: str | None) -> str:
    if given is None:
        scheme = "http" if config.server.tls is None else "https"
        return config.server.external_url or f"{scheme}://{_listening(config.server.listen)}"
    parts = urlsplit(given)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or "@" in parts.netloc
        or parts.path.strip("/")
    ):
        raise click.ClickException(
            '--url: write it as "http://cache.example:5000", without a path or credentials'
        )
    return f"{parts.scheme}://{parts.netloc}"


def _listening(addresses: tuple[str, ...]) -> str:
    """By the first address that clients on this host could use."""
    for address in addresses:
        host = address.rpartition(":")[0].strip("[]")
        if ":" in address and not address.startswith(("unix:", "systemd:")) and host not in ANY:
            return address
    raise click.ClickException(
        f"clients cannot tell from listen = {list(addresses)} where the cache is: say --url"
    )


def _print(tool: str, cache: Cache) -> None:
    for planned in TOOLS[tool].files(cache):
        try:
            text = planned.text(None)
        except CannotMerge as error:  # nothing to merge with, but it says what a person can mend
            raise click.ClickException(f"/{planned.path} {error}") from error
        click.echo(f"# /{planned.path}\n{text}")
    _notes(tool, cache)


def _write(tool: str, root: Path, cache: Cache) -> None:
    try:
        written = Files(root, tool).write(TOOLS[tool].files(cache))
    except (CannotWrite, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path in written:
        click.echo(f"wrote {path}")
    _notes(tool, cache)


def _notes(tool: str, cache: Cache) -> None:
    for note in TOOLS[tool].notes(cache):
        click.echo(f"then: {note}", err=True)


def _undo(tool: str, root: Path) -> None:
    try:
        restored = Files(root, tool).undo()
    except (CannotWrite, OSError) as error:
        raise click.ClickException(str(error)) from error
    if not restored:
        raise click.ClickException(f"--write was not used for {tool} below {root}: nothing to undo")
    for path in restored:
        click.echo(f"{'restored' if path.exists() else 'removed'} {path}")


def _check(tool: str, root: Path, images: tuple[str, ...]) -> None:
    from cacheproxy.commands.clients import proof
    from cacheproxy.core.errors import OCIError

    try:
        for text in images:
            image = proof.image_of(text)
            for asked in proof.requests(tool, root, image):
                said = proof.ask(asked)
                click.echo(f"ok  {asked.method} {asked.url}  {said}  (by {asked.file})")
    except (proof.NotProven, OCIError) as error:
        raise click.ClickException(str(error)) from error
