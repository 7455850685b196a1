from __future__ import annotations

import stat
from pathlib import Path

from tests.commands.desk import Desk, at_desk
from tests.faults.house import hosts


async def test_without_a_daemon_there_is_one_clear_line(folder: Path) -> None:
    async with hosts(folder) as house:
        said = await Desk(house).refuses("status")
    assert said.count("\n") == 1
    assert f"no daemon answers at {folder}/state/admin.sock" in said


async def test_what_the_daemon_refuses_is_one_line(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert await desk.refuses("explain", "unknown.example/x") == (
            "Error: the registry unknown.example is not declared here\n"
        )


async def test_strangers_may_not_open_the_socket(folder: Path) -> None:
    async with at_desk(folder) as desk:
        mode = (desk.house.state / "admin.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o660
