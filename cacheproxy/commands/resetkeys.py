"""What a key sealed that is lost: given up, with the daemon stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cacheproxy.commands.options import Load, config_file
from cacheproxy.commands.words import plural, told

if TYPE_CHECKING:
    from cacheproxy.config import Config


@click.command(name="reset-keys")
@config_file
@click.pass_obj
def reset_keys(load: Load, file: Path | None) -> None:
    """Give up what a key sealed that is lost, with the daemon stopped.

    The keys that sign tokens go, so whoever has a token asks for another one; and the access keys that
    commands made, which have to be made anew.
    """
    import trio

    config = load(file)
    failures: list[str] = []
    try:
        gone = trio.run(_forget, config)
        click.echo(f"{plural(gone, 'sealed secret')} given up; the daemon makes new keys at its start")
    except* Exception as group:  # noqa: BLE001 - told in a line each
        from cacheproxy.groups import leaves

        failures.extend(map(told, leaves(group)))
    if failures:
        raise click.ClickException("; ".join(failures))


async def _forget(config: Config) -> int:
    from cacheproxy import wiring
    from cacheproxy.store.running import running
    from cacheproxy.store.tokens import TokenRows

    with running(config.storage.state):
        async with wiring.open_database(config.storage) as database:
            return await TokenRows(database).forget_sealed()
