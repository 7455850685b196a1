"""Load, crash, look, start again without an upstream, compare with what was told; and so on.

The seed is printed, and set by $SEED: which clients ask for what, and when the crash comes, follow from it
(what the machine does in between does not). $CYCLES says how many.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
import trio

from tests.crash.daemons import CONFIG, Daemon, Nest, fsck, nest, served
from tests.crash.ledger import Ledger
from tests.crash.load import Load
from tests.crash.places import Place
from tests.crash.remains import Found
from tests.crash.world import MIB, PINNED, TAGS, World, manifests
from tests.origin import Origin

T = TypeVar("T", bound=tuple[Any, ...])

AMPLE, TIGHT = 1 << 30, 8 * MIB
"""Budgets: all that the world has are some 20 MiB. Where nothing is evicted, what was stored must stay."""

EARLIEST, LATEST = 0.005, 2.0
"""Seconds from READY to the crash."""

RATES = (2 * MIB, 8 * MIB, 64 * MIB)
"""Bytes a second of one transfer from the upstream, one of them a cycle."""

ANSWERS = {"manifests", "blobs"}
"""What a run has to have heard, to prove anything."""
MORE = 10
"""Crashes at most that a short run has more, until it has."""

SAMPLE = 24
"""Images and blobs that are asked for after each crash; the rows and files of all are looked at."""

FSCK_EVERY = 10
"""Crashes after which the product's own checker looks, too; and once more at the end."""


@dataclass(frozen=True)
class Crash:
    happen: Callable[[Daemon], Awaitable[None]]
    """After it the daemon is gone, and what is left can be looked at."""


@dataclass
class Told:
    """Figures of a run."""

    cycles: int = 0
    seconds: float = 0.0
    slowest_start: float = 0.0
    orphans: int = 0
    unfinished: int = 0
    trash: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return (
            f"{self.cycles} crashes in {self.seconds:.0f} s, slowest start {self.slowest_start:.2f} s;"
            f" told: {counts}; left by crashes: {self.unfinished} unfinished downloads,"
            f" {self.orphans} files without a row, {self.trash} places in the trash"
        )


def wanted_cycles(default: int) -> int:
    return int(os.environ.get("CYCLES") or default)


def chosen_seed() -> int:
    return int(os.environ.get("SEED") or secrets.randbits(32))


async def crash_again_and_again(folder: Path, place: Place, cycles: int, crash: Crash) -> Told:
    """`folder` has the configuration. Raises AssertionError with all that was wrong, and the seed."""
    seed, told, began = chosen_seed(), Told(), time.monotonic()
    click.echo(f"SEED={seed} CYCLES={cycles}")
    rng = random.Random(seed)
    world = World(rng)
    origin = Origin(world.content)
    async with nest() as warm, trio.open_nursery() as nursery:
        await nursery.start(origin.serve)
        run = _Run(folder, place, world, origin, Ledger(world), rng, warm, told)
        while told.cycles < cycles or (
            told.cycles < cycles + MORE and not run.ledger.counts.keys() >= ANSWERS
        ):
            told.cycles += 1
            await run.cycle(crash)
            if told.cycles % 20 == 0:
                click.echo(f"{told.cycles} crashes after {time.monotonic() - began:.0f} s")
            wrong = "\n".join(run.ledger.wrong)
            assert not wrong, f"SEED={seed}, cycle {told.cycles} of {cycles}:\n{wrong}"
        await run.last()
        nursery.cancel_scope.cancel()
    told.seconds, told.counts = time.monotonic() - began, run.ledger.counts
    click.echo(str(told))
    return told


@dataclass
class _Run:
    folder: Path
    place: Place
    world: World
    origin: Origin
    ledger: Ledger
    rng: random.Random
    nest: Nest
    told: Told
    orphans: set[str] = field(default_factory=set)

    async def cycle(self, crash: Crash) -> None:
        ample = self.rng.random() < 0.5
        self.origin.rate = self.rng.choice(RATES)
        async with served(self._config(AMPLE if ample else TIGHT)) as daemon:
            self.told.slowest_start = max(self.told.slowest_start, daemon.ready_after)
            if not ample:
                self.ledger.evicting()
            await self._prepare(daemon)
            await self._under_load(daemon, crash, ample)
        self.ledger.crash()
        found = self.place.look(self.world.blobs)
        self.told.orphans += len(found.orphans - self.orphans)
        self.orphans = found.orphans
        self.told.unfinished += len(list((self.place.state / "blobs" / "partial").glob("*.part")))
        self.told.trash += len(found.trash)
        self.ledger.judge(found)
        if self.told.cycles % FSCK_EVERY == 1:
            self.ledger.wrong += await fsck(self._config(AMPLE))
        await self._ask_without_upstream(found)

    async def last(self) -> None:
        """All that is left without a row is swept once it is old, and nothing else is."""
        async with self.nest.daemon(self._config(AMPLE), grace=self.place.age()) as daemon:
            with trio.fail_after(60):
                while self.place.look(self.world.blobs, running=True).orphans:
                    await trio.sleep(0.05)
            assert await daemon.stop() == 0
        found = self.place.look(self.world.blobs)
        assert not found.wrong, found.wrong
        assert not found.trash, found.trash
        assert await fsck(self._config(AMPLE)) == []

    def _config(self, budget: int) -> Path:
        file = self.folder / "cacheproxy.toml"
        text = CONFIG.format(state=self.place.state, budget=f"{budget // MIB}MiB", url=self.origin.url)
        file.write_text(text.replace("[cache]", f"{self.place.storage}[cache]"))
        return file

    async def _prepare(self, daemon: Daemon) -> None:
        """What is pinned is there from the first start on."""
        if self.told.cycles == 1:
            for tag in TAGS:
                assert (await daemon.ask(f"{manifests(PINNED)}{tag}")).status == 200
                assert (await daemon.command("/pin", reference=f"{PINNED}:{tag}"))[0] == 200

    async def _under_load(self, daemon: Daemon, crash: Crash, ample: bool) -> None:
        load = Load(self.world, self.ledger, daemon, self.rng)

        def see() -> None:
            self.ledger.see_stored(self.place.stored())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, see if ample else None)
            await trio.sleep(self.rng.uniform(EARLIEST, LATEST))
            load.over.set()
            await crash.happen(daemon)
            nursery.cancel_scope.cancel()

    async def _ask_without_upstream(self, found: Found) -> None:
        """What the rows say is here is served, and right, by this node alone; then the daemon dies idle."""
        self.origin.refusing = True
        try:
            async with self.nest.daemon(self._config(AMPLE)) as daemon:
                self.told.slowest_start = max(self.told.slowest_start, daemon.ready_after)
                await self._ask(daemon, found)
                if self.rng.random() < 0.5:
                    daemon.signal(signal.SIGKILL)
                else:
                    assert await daemon.stop() == 0
                await daemon.ended()
        finally:
            self.origin.refusing = False
        again = self.place.look(self.world.blobs)
        if (again.images, again.tags, again.stored) != (found.images, found.tags, found.stored):
            self.ledger.wrong.append("a start without requests changed the rows")
        self.ledger.wrong += again.wrong

    async def _ask(self, daemon: Daemon, found: Found) -> None:
        for (repository, tag), digest in self._sample(found.tags.items()):
            heard = await daemon.ask(manifests(repository) + tag)
            self._expect(f"{repository}:{tag}", heard.body, self.world.images[repository, digest].manifest)
        for repository, digest in self._sample(found.images):
            image = self.world.images[repository, digest]
            self._expect(image.path(), (await daemon.ask(image.path())).body, image.manifest)
        for repository, digest in self._sample(found.linked):
            if digest in found.stored:
                path = f"/v2/docker-hub/{repository}/blobs/{digest}"
                self._expect(path, (await daemon.ask(path)).body, self.world.blobs[digest])
        for repository in sorted(self.ledger.gone):
            heard = await daemon.ask(f"{manifests(repository)}latest")
            if heard.status == 200:
                self.ledger.wrong.append(f"purged {repository} is served")

    def _sample(self, items: Iterable[T]) -> list[T]:
        found = sorted(items)
        return self.rng.sample(found, min(SAMPLE, len(found)))

    def _expect(self, what: str, said: bytes, right: bytes) -> None:
        if said != right:
            self.ledger.wrong.append(f"{what} is not served without its upstream: {said[:300]!r}")
