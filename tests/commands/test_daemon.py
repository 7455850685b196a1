from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cacheproxy.commands import daemon
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


async def test_the_services_socket_is_tried_where_the_configurations_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_desk(folder) as desk:
        monkeypatch.setattr(daemon, "RUNTIME", desk.house.state)
        elsewhere = desk.house.file.read_text().replace(f'"{desk.house.state}"', f'"{folder}/elsewhere"')
        desk.house.file.write_text(elsewhere)
        assert (await desk.says("status")).startswith("up ")


async def test_strangers_may_not_open_the_socket(folder: Path) -> None:
    async with at_desk(folder) as desk:
        mode = (desk.house.state / "admin.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o660
