"""Daemons that host, each with a folder of its own and no upstream that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio
from click.testing import CliRunner, Result

from cacheproxy import cli, config
from cacheproxy.app import main
from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.layouts.door import Door
from cacheproxy.core.digest import Digest
from tests.commands.layouts.memory import Memory

T = TypeVar("T")

CONFIG = """\
[server]
listen = ["127.0.0.1:0"]
metrics = "127.0.0.1:0"
[log]
requests = false
[storage]
state = "{state}"
[cache]
min_free = "0%"
[[upstream]]
registry = "reg.test"
prefix = "up"
url = "http://127.0.0.1:9"
[[virtual]]
prefix = "all"
members = ["team", "up"]
push = "team"
[[virtual]]
prefix = "read"
members = ["team", "up"]
[[grant]]
to = ["user:nobody"]
allow = ["pull"]
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[[template]]
prefix = "fixed"
applied_for = ["create-on-push"]
tag_mutability = "immutable"
[[template]]
prefix = "small"
applied_for = ["create-on-push"]
quota_images = 1
"""


class Site:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.file = folder / "cacheproxy.toml"
        self.file.write_text(CONFIG.format(state=folder / "state"))
        self._door = Door(Daemon([folder / "state" / "admin.sock"]))

    async def run(self, *words: str | Path, given: bytes | None = None) -> Result:
        words, invoke = (*words, "--config", self.file), CliRunner().invoke
        return await _in_thread(lambda: invoke(cli.main, [str(word) for word in words], input=given))

    async def says(self, *words: str | Path, given: bytes | None = None) -> Result:
        """Of a command that must end well."""
        result = await self.run(*words, given=given)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    async def refuses(self, *words: str | Path) -> str:
        result = await self.run(*words)
        assert result.exit_code == 1, (result.output, result.exception)
        return result.stderr

    async def means(self, repository: str, tag: str) -> str | None:
        return await _in_thread(lambda: self._door.means(repository, tag))

    async def has(self, repository: str, digest: Digest) -> bool:
        return await _in_thread(lambda: self._door.has(repository, digest))

    async def tags(self, repository: str) -> list[str]:
        return await _in_thread(lambda: list(self._door.tags(repository, "")))

    async def take(self, registry: Memory) -> None:
        """Push all that is in a registry of a test's."""
        await _in_thread(lambda: self._take(registry))

    def _take(self, registry: Memory) -> None:
        for name, kept in registry.kept.items():
            for digest, data in kept.blobs.items():
                self._door.push(name, digest, len(data), iter([data]))
            for digest, (media_type, body) in kept.manifests.items():
                self._door.put(name, digest, body, media_type)
            for tag, digest in kept.tags.items():
                media_type, body = kept.manifests[digest]
                self._door.put(name, tag, body, media_type)

    async def lacks(self, registry: Memory, *, below: str = "") -> list[str]:
        """What of all that is in such a registry is not here, or not the same."""
        return await _in_thread(lambda: self._lacks(registry, below))

    def _lacks(self, registry: Memory, below: str) -> list[str]:
        lacking = []
        for name, kept in registry.kept.items():
            place = below + name
            lacking += [tag for tag, digest in kept.tags.items() if self._door.means(place, tag) != digest]
            for digest, (media_type, body) in kept.manifests.items():
                if self._door.manifest(place, digest) != (digest, media_type, body):
                    lacking.append(digest)
            for digest, data in kept.blobs.items():
                if not self._same(place, digest, data):
                    lacking.append(digest)
        return lacking

    def _same(self, name: str, digest: Digest, data: bytes) -> bool:
        return self._door.has(name, digest) and b"".join(self._door.blob(name, digest, len(data))) == data


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    made, drain = Site(folder), trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            await nursery.start(main, config.load(made.file), drain)
        yield made
        drain.set()


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)
