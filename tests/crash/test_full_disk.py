"""The disk is full from each of the daemon's storage calls on (reliability: H6), and others than one disk.

tests/faults/test_full_disk.py has the disk that holds everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from tests.crash.cycles import chosen_seed, wanted_cycles
from tests.crash.scenes import SCENES, Scene, heal, staged, starve
from tests.e2e.disks import fill_up, memory_disk
from tests.faults.house import House, house

EVERY = 1 if wanted_cycles(0) >= 100 else 20
"""All calls in a long run, else one in so many, from a random one on."""

MIB = 1 << 20


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_disk_full_from_any_storage_call_on(scene: Scene, folder: Path) -> None:
    seed = chosen_seed()
    number, starved = random.Random(seed).randrange(EVERY), 0
    async with staged(folder, scene) as stage:
        while True:
            try:
                if not await starve(stage, scene, number + 1):
                    if starved or not number:
                        break
                    number //= 2  # the story has fewer calls
                    continue
                await heal(stage, scene)
            except BaseException as error:
                error.add_note(f"SEED={seed}, {scene.name}: full from call {number + 1} on")
                raise
            starved += 1
            number += EVERY
    click.echo(f"SEED={seed} {scene.name}: full {starved} times, at last from call {number + 1 - EVERY} on")
    assert starved


@pytest.mark.root
@pytest.mark.parametrize("full", ["blobs", "rows"])
async def test_one_of_two_disks_is_full(full: str, folder: Path) -> None:
    """What is pulled is served; and kept, once there is room."""
    with (
        memory_disk(folder / "state", 8 * MIB) as rows,
        memory_disk(folder / "state" / "blobs", 8 * MIB) as blobs,
    ):
        async with house(folder, cache='budget = "100%"') as h:
            await _full_and_relieved(h, lambda: [fill_up({"blobs": blobs, "rows": rows}[full])])


@pytest.mark.root
async def test_disk_takes_no_more_files(folder: Path) -> None:
    """It has room for bytes; what is there is served, and what is new."""
    with memory_disk(folder / "state", 64 * MIB, files=100) as disk:
        async with house(folder, cache='budget = "100%"') as h:
            await _full_and_relieved(h, lambda: list(_use_up_files(disk)))


def _use_up_files(disk: Path) -> Iterator[Path]:
    for number in range(100):
        try:
            (disk / f"file{number}").touch()
        except OSError:
            return
        yield disk / f"file{number}"
    raise AssertionError("there is no end to the files it takes")


async def _full_and_relieved(h: House, fill: Callable[[], list[Path]]) -> None:
    old, new = (h.image(name, random.Random(name).randbytes(MIB)) for name in ("library/a", "library/b"))
    await h.pull(old)
    await h.quiet()
    fillers = fill()
    for _ in range(2):
        await h.pull(new)
        await h.pull(old)
    await h.quiet()
    for filler in fillers:
        filler.unlink()
    await h.pull(new)
    await h.quiet()
    sent = h.asked("blob")
    await h.pull(new)
    assert h.asked("blob") == sent, "kept since there is room"
