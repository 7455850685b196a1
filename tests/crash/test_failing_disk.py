"""Each of the daemon's storage calls fails once, with EIO (reliability: 2.1b, H5)."""

from __future__ import annotations

import random
from pathlib import Path

import click
import pytest

from tests.crash.cycles import chosen_seed, wanted_cycles
from tests.crash.scenes import SCENES, Scene, ail, heal, staged

EVERY = 1 if wanted_cycles(0) >= 100 else 20
"""All calls in a long run, else one in so many, from a random one on."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_any_storage_call_fails(scene: Scene, folder: Path) -> None:
    seed = chosen_seed()
    number, failed = random.Random(seed).randrange(EVERY), 0
    async with staged(folder, scene) as stage:
        while True:
            try:
                if not await ail(stage, scene, number + 1):
                    if failed or not number:
                        break
                    number //= 2  # the story has fewer calls
                    continue
                await heal(stage, scene)
            except BaseException as error:
                error.add_note(f"SEED={seed}, {scene.name}: call {number + 1} failed")
                raise
            failed += 1
            number += EVERY
    click.echo(f"SEED={seed} {scene.name}: {failed} failures, the last of call {number + 1 - EVERY}")
    assert failed
