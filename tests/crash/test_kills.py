"""A real daemon under load, killed at any moment (reliability: H2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.cycles import Crash, crash_again_and_again, wanted_cycles
from tests.crash.daemons import Daemon

CYCLES = wanted_cycles(6)


@pytest.mark.timeout(60 + 20 * CYCLES)
async def test_what_was_told_survives_kill_9(folder: Path) -> None:
    async def kill(daemon: Daemon) -> None:
        await daemon.kill()

    told = await crash_again_and_again(folder, folder / "state", CYCLES, Crash(kill))
    assert {"manifests", "blobs"} <= told.counts.keys(), "a run without answers proves nothing"
