"""The daemon dies at each storage call in turn, while images come and go (reliability 2.1b: P, T, D, G)."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import click
import pytest
import trio

from tests.crash.cycles import chosen_seed, wanted_cycles
from tests.crash.daemons import DidNotStart, Nest, fsck, nest
from tests.crash.pushed import REPOSITORIES, Shelf, State
from tests.crash.soak import configured
from tests.crash.teams import Cleaner, Pusher
from tests.crash.visits import Door, Lost, Visitor

EVERY = 5 if wanted_cycles(0) >= 100 else 100
"""One call in so many, from a random one on: there are some 600."""


class Story:
    """Two images come, and a tag that may move; then the first one goes, and what only it had."""

    def __init__(self, seed: int) -> None:
        self.shelf, self.door = Shelf(random.Random(seed)), Door()
        rng = random.Random(seed)
        repository = REPOSITORIES[0]
        self.tag = self.shelf.tag(repository, "p0")
        self.first, self.second = (self.shelf.image(repository) for _ in range(2))
        self.pusher = Pusher(Visitor("builder", self.door, self.shelf), self.shelf, rng, [self.tag])
        self.cleaner = Cleaner(Visitor("cleaner", self.door, self.shelf), self.shelf, rng)
        self.reader = Visitor("reader", self.door, self.shelf)

    async def tell(self) -> None:
        """Raises Lost."""
        for item in (self.first, self.second):
            await self.pusher.push(item)
        if self.first.state is not State.GONE:
            await self.cleaner.delete(self.first)

    async def judge(self) -> None:
        for item in (self.first, self.second):
            if item.state is State.TOLD and (wrong := await self.reader.see(item)):
                self.shelf.wrong.append(f"told, and not whole: {wrong}")
            if item.state is State.GONE and (await self.reader.ask(item.path)).status != 404:
                self.shelf.wrong.append(f"never pushed, or deleted, and there: {item}")
        if (meaning := await self.reader.meaning(self.tag.path)) not in self.tag.meanings:
            self.shelf.wrong.append(f"the tag means {meaning}, and not one of {self.tag.meanings}")


async def died(warm: Nest, config: Path, story: Story, number: int) -> bool:
    """Whether the daemon did before that call; False: the story was over first."""
    code = -1
    try:
        async with warm.daemon(config, {"kill_at": number}, quick=True) as daemon:
            story.door.open(daemon)
            await story.tell()
            with trio.fail_after(60):
                while await daemon.metric("cacheproxy_collected_bytes_total") == 0:
                    await trio.sleep(0.1)
            code = await daemon.stop()
    except* (DidNotStart, Lost, OSError, trio.BrokenResourceError):
        pass
    finally:
        story.door.close()
    return code != 0


async def goes_on(warm: Nest, config: Path, story: Story) -> None:
    """The next start: what was told is so, and the story is told to its end."""
    async with warm.daemon(config, quick=True) as daemon:
        story.door.open(daemon)
        await story.judge()
        await story.tell()
        await story.judge()
        story.door.close()
        assert await daemon.stop() == 0
    story.shelf.wrong += await fsck(config)


@pytest.mark.timeout(900)
async def test_what_was_told_of_a_push_survives_a_death_at_any_storage_call(folder: Path) -> None:
    seed, deaths = chosen_seed(), 0
    number = random.Random(seed).randrange(EVERY) + 1
    async with nest() as warm:
        fresh = folder / "fresh"
        fresh.mkdir()
        async with warm.daemon(configured(fresh, ""), quick=True) as daemon:
            assert await daemon.stop() == 0
        while True:
            place, story = folder / str(number), Story(seed)
            shutil.copytree(fresh, place, ignore=shutil.ignore_patterns("*.sock"))
            config = configured(place, "")
            if not await died(warm, config, story, number):
                break
            deaths += 1
            await goes_on(warm, config, story)
            assert not story.shelf.wrong, f"SEED={seed}: died before call {number}: {story.shelf.wrong}"
            number += EVERY
    click.echo(f"SEED={seed}: {deaths} deaths, the last before call {number - EVERY}")
    assert deaths
