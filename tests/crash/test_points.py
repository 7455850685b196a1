"""The daemon dies at each of its storage calls in turn (reliability 2.1b: S1, C1-C5, T1-T3, G1-G4, D1-D3)."""

from __future__ import annotations

import random
from pathlib import Path

import click
import pytest

from tests.crash.cycles import chosen_seed, wanted_cycles
from tests.crash.scenes import SCENES, Scene, Stage, die, heal, staged, wrong

EVERY = 1 if wanted_cycles(0) >= 100 else 20
"""All calls in a long run, else one in so many, from a random one on."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_death_at_any_storage_call(scene: Scene, folder: Path) -> None:
    seed = chosen_seed()
    number, died = random.Random(seed).randrange(EVERY), 0
    async with staged(folder, scene) as stage:
        while True:
            if not await die(stage, scene, number + 1):
                if died or not number:
                    break
                number //= 2  # the story has fewer calls
                continue
            died += 1
            try:
                _judge(stage, scene)
                await heal(stage, scene)
            except BaseException as error:
                error.add_note(f"SEED={seed}, {scene.name}: died before call {number + 1}")
                raise
            number += EVERY
    click.echo(f"SEED={seed} {scene.name}: {died} deaths, the last before call {number + 1 - EVERY}")
    assert died


def _judge(stage: Stage, scene: Scene) -> None:
    found = stage.look()
    assert wrong(stage, scene, found) == []
    images = {digest for _, digest in found.images}
    assert stage.told - {"purge"} <= images, "told, and gone"
    if "purge" in stage.told:
        assert not images, "purged, and back"
    for repository in scene.stays:
        image = stage.image(repository)
        assert image.digest in images
        assert found.tags[repository, "latest"] == image.digest
        assert found.stored.keys() >= set(image.blobs)
