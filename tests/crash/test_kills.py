"""A real daemon under load, killed at any moment (reliability: H2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.cycles import ANSWERS, Crash, crash_again_and_again, wanted_cycles
from tests.crash.daemons import Daemon
from tests.crash.places import Local, shared
from tests.seaweed import Seaweed

CYCLES = wanted_cycles(6)


async def kill(daemon: Daemon) -> None:
    await daemon.kill()


@pytest.mark.timeout(180 + 20 * CYCLES)
async def test_what_was_told_survives_kill_9(folder: Path) -> None:
    told = await crash_again_and_again(folder, Local(folder / "state"), CYCLES, Crash(kill))
    assert told.counts.keys() >= ANSWERS, "a run without answers proves nothing"


@pytest.mark.timeout(120 + 40 * CYCLES)
async def test_what_was_told_survives_kill_9_in_postgresql_and_a_bucket(
    folder: Path, seaweed_server: Seaweed
) -> None:
    with shared(folder / "state", seaweed_server) as place:
        told = await crash_again_and_again(folder, place, CYCLES, Crash(kill))
    assert told.counts.keys() >= ANSWERS, "a run without answers proves nothing"
