"""The disk is full from each of the daemon's storage calls on (reliability: H6), and others than one disk.

tests/faults/test_full_disk.py has the disk that holds everything.
"""

from __future__ import annotations

import random
from pathlib import Path

import click
import pytest

from tests.crash.cycles import chosen_seed, wanted_cycles
from tests.crash.scenes import SCENES, Scene, heal, staged, starve
from tests.e2e.disks import fill_up, memory_disk
from tests.faults.house import house

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
                    break
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
            old, new = (
                h.image(name, random.Random(name).randbytes(MIB)) for name in ("library/a", "library/b")
            )
            await h.pull(old)
            await h.quiet()
            filler = fill_up({"blobs": blobs, "rows": rows}[full])
            for _ in range(2):
                await h.pull(new)
                await h.pull(old)
            await h.quiet()
            filler.unlink()
            await h.pull(new)
            await h.quiet()
            sent = h.asked("blob")
            await h.pull(new)
            assert h.asked("blob") == sent, "kept since there is room"
