"""A real daemon under load on a file system that a power cut ends (reliability: H3). As root: it mounts."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.crash.cycles import ANSWERS, Crash, crash_again_and_again, wanted_cycles
from tests.crash.daemons import Daemon
from tests.crash.disks import FORMAT, Disk, disk
from tests.crash.places import Local

CYCLES = wanted_cycles(4)

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", FORMAT)
def test_cut_takes_what_was_not_synced(kind: str, folder: Path) -> None:
    """Else the other test would prove nothing."""
    with disk(kind, folder) as cuttable:
        for name, synced in (("synced", True), ("lost", False)):
            with (cuttable.point / name).open("wb") as file:
                file.write(b"x" * 10_000)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
        cuttable.cut()
        cuttable.unmount()
        cuttable.mount()
        there = {path.name: path.stat().st_size for path in cuttable.point.glob("*") if path.is_file()}
        assert there["synced"] == 10_000
        assert there.get("lost", 0) == 0


@pytest.mark.timeout(60 + 20 * CYCLES)
@pytest.mark.parametrize("kind", FORMAT)
async def test_what_was_told_survives_a_power_cut(kind: str, folder: Path) -> None:
    with disk(kind, folder) as cuttable:
        place = Local(cuttable.point / "state")
        told = await crash_again_and_again(folder, place, CYCLES, Crash(_cut(cuttable)))
    assert told.counts.keys() >= ANSWERS, "a run without answers proves nothing"


def _cut(cuttable: Disk) -> Callable[[Daemon], Awaitable[None]]:
    async def cut(daemon: Daemon) -> None:
        cuttable.cut()
        await daemon.kill()
        await trio.to_thread.run_sync(cuttable.unmount)
        await trio.to_thread.run_sync(cuttable.mount)

    return cut
