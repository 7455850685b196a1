"""A minute in the life of hosted repositories: clients at work, the collector beside them, kills in between.

$SECONDS and $KILLS say how long and how often, $SEED repeats what clients and kills did.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from tests.crash.cycles import chosen_seed
from tests.crash.daemons import Nest, examined, fsck, nest, served
from tests.crash.pushed import REPOSITORIES, Shelf, State
from tests.crash.teams import Actor, Cleaner, Passer, Puller, Pusher
from tests.crash.visits import ACCOUNTS, SECRET, Door, Visitor

PUSHERS = PULLERS = 8
CLEANERS = 2

FSCK_EVERY = 5
"""Kills after which the product's own checker looks."""

ENDS_WITHIN = 120.0
"""Seconds until everybody has done what was begun, and until all that nobody names has gone."""

CONFIG = """\
[server]
listen = ["127.0.0.1:0"]
metrics = "127.0.0.1:0"
[log]
requests = false
format = "json"
[storage]
state = "{state}"
{storage}
[access]
anonymous_pull = []
[[upstream]]
registry = "reg.test"
default = true
url = "http://127.0.0.1:9"
allow_addresses = ["127.0.0.0/8"]
{accounts}
[[grant]]
to = ["user:builder"]
allow = ["pull", "push", "create"]
repositories = "team/**"
[[grant]]
to = ["user:reader"]
allow = ["pull"]
repositories = "team/**"
[[grant]]
to = ["user:cleaner"]
allow = ["pull", "delete"]
repositories = "team/**"
[[template]]
prefix = "team"
applied_for = ["create-on-push"]
"""
ACCOUNT = '[[account]]\nname = "{name}"\nsecret = {{ file = "account.secret" }}\n'


def configured(folder: Path, storage: str) -> Path:
    (folder / "account.secret").write_text(SECRET)
    accounts = "".join(ACCOUNT.format(name=name) for name in ACCOUNTS)
    file = folder / "cacheproxy.toml"
    file.write_text(CONFIG.format(state=folder / "state", storage=storage, accounts=accounts))
    return file


@dataclass
class Soak:
    config: Path
    nest: Nest
    rng: random.Random
    shelf: Shelf
    door: Door
    slowest_start: float = 0.0

    async def run(self, seconds: float, kills: int) -> None:
        """Everybody at work for so long, and then all is looked at."""
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            for actor in self._actors():
                nursery.start_soon(actor.work, over)
            for number in range(1, kills + 1):
                async with self._open():
                    await trio.sleep(seconds / kills * self.rng.uniform(0.2, 1.8))
                if number % FSCK_EVERY == 0:
                    await self.check()
                self.fail_if_wrong(f"kill {number} of {kills}")
            async with self._open(killed=False):
                over.set()
                with trio.fail_after(ENDS_WITHIN):
                    while nursery.child_tasks:
                        await trio.sleep(0.01)
                await self.check()
        self.fail_if_wrong("at work")

    def _actors(self) -> list[Actor]:
        def seat(account: str) -> tuple[Visitor, Shelf, random.Random]:
            return Visitor(account, self.door, self.shelf), self.shelf, random.Random(self.rng.random())

        actors: list[Actor] = [Puller(*seat("reader")) for _ in range(PULLERS)]
        actors += [Cleaner(*seat("cleaner")) for _ in range(CLEANERS)]
        for number in range(PUSHERS):
            tags = [self.shelf.tag(repository, f"p{number}") for repository in REPOSITORIES]
            actors.append(Pusher(*seat("builder"), tags))
        return [*actors, Passer(*seat("builder"), [])]

    @asynccontextmanager
    async def _open(self, *, killed: bool = True) -> AsyncIterator[None]:
        async with self.nest.daemon(self.config, quick=True) as daemon:
            self.slowest_start = max(self.slowest_start, daemon.ready_after)
            self.door.open(daemon)
            yield
            self.door.close()
            if killed:
                await daemon.kill()
                assert await daemon.ended() == -signal.SIGKILL, "it had ended before"
            else:
                assert await daemon.stop() == 0

    async def check(self) -> None:
        self.shelf.wrong += await fsck(self.config)

    async def see_all(self) -> None:
        """With a daemon whose days are days: all that was told is there, and what was deleted is not."""
        reader = Visitor("reader", self.door, self.shelf)
        async with served(self.config) as daemon:
            self.door.open(daemon)
            for item in self.shelf.items:
                if item.state is State.TOLD and (wrong := await reader.see(item)):
                    self.shelf.wrong.append(f"told, and not whole in the end: {wrong}")
                if item.state is State.GONE and (await reader.ask(item.path)).status != 404:
                    self.shelf.wrong.append(f"deleted, and there in the end: {item}")
            for tag in self.shelf.tags:
                if (meaning := await reader.meaning(tag.path)) not in tag.meanings:
                    self.shelf.wrong.append(f"{tag.path} means {meaning}, and not one of {tag.meanings}")
            self.door.close()
            assert await daemon.stop() == 0

    async def let_all_go(self) -> None:
        """When everything is deleted, nothing is left."""
        cleaner = Cleaner(Visitor("cleaner", self.door, self.shelf), self.shelf, self.rng)
        async with self._open(killed=False):
            for item in sorted(self.shelf.free(State.TOLD, State.UNKNOWN), key=self.shelf.held):
                await cleaner.delete(item)
            with trio.fail_after(ENDS_WITHIN):
                seen = (await examined(self.config))["seen"]
                while seen["images"] or seen["blobs"]:
                    await trio.sleep(0.2)
                    seen = (await examined(self.config))["seen"]
        click.echo(f"left by kills: {seen['files']} files without a row")

    def fail_if_wrong(self, when: str) -> None:
        wrong = "\n".join(self.shelf.wrong)
        assert not wrong, f"{when}:\n{wrong}"


async def soak(folder: Path, storage: str = "") -> dict[str, int]:
    """How often what happened. Raises AssertionError with all that was wrong, and the seed."""
    seconds = float(os.environ.get("SECONDS") or 15)
    kills = int(os.environ.get("KILLS") or 5)
    seed, began = chosen_seed(), time.monotonic()
    click.echo(f"SEED={seed} SECONDS={seconds:g} KILLS={kills}")
    rng = random.Random(seed)
    async with nest() as warm:
        run = Soak(configured(folder, storage), warm, rng, Shelf(rng), Door())
        try:
            await run.run(seconds, kills)
            await run.see_all()
            await run.let_all_go()
            await run.check()
            run.fail_if_wrong("in the end")
        except BaseException as error:
            error.add_note(f"SEED={seed} SECONDS={seconds:g} KILLS={kills}")
            raise
    counts = ", ".join(f"{count} {what}" for what, count in sorted(run.shelf.counts.items()))
    click.echo(f"{time.monotonic() - began:.0f} s, slowest start {run.slowest_start:.2f} s: {counts}")
    return run.shelf.counts
