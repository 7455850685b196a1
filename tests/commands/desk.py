"""Commands as a person types them, against a daemon of this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from click.testing import CliRunner, Result

from cacheproxy import cli
from tests.faults.house import House, Image, house


class Desk:
    """Somebody at the daemon's machine."""

    def __init__(self, house: House) -> None:
        self.house = house

    async def pull(self, image: Image) -> None:
        """Until its bytes are stored: clients have theirs before that."""
        await self.house.pull(image)
        await self.house.quiet()

    async def run(self, *words: str | Path) -> Result:
        words = (*words, "--config", self.house.file)
        run = CliRunner().invoke
        return await trio.to_thread.run_sync(lambda: run(cli.main, [str(word) for word in words]))

    async def says(self, *words: str | Path) -> str:
        """Of a command that must end well."""
        result = await self.run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    async def tells(self, *words: str | Path) -> Any:
        return json.loads(await self.says(*words, "--json"))

    async def refuses(self, *words: str | Path) -> str:
        result = await self.run(*words)
        assert result.exit_code == 1, (result.output, result.exception)
        assert result.stdout == ""
        return result.stderr


@asynccontextmanager
async def at_desk(folder: Path, **options: Any) -> AsyncIterator[Desk]:
    async with house(folder, **options) as built:
        yield Desk(built)
