from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.desk import Desk
from tests.faults.house import House, hosts
from tests.faults.remains import rows_of

LAYER = b"a layer of the image"


async def pulled(house: House) -> Path:
    """A daemon has been here, and left in order; says where the layer is."""
    async with house.daemon():
        await Desk(house).pull(house.image("library/debian", LAYER))
    with rows_of(house.state) as rows:
        ((location,),) = rows.execute("SELECT location FROM blob WHERE size = ?", (len(LAYER),)).fetchall()
    return house.state / "blobs" / str(location)


async def told(house: House, *words: str, code: int) -> Any:
    result = await Desk(house).run("fsck", "--json", *words)
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout)


async def test_what_a_daemon_leaves_is_as_it_should_be(folder: Path) -> None:
    async with hosts(folder) as house:
        await pulled(house)
        before = sorted(path.name for path in house.state.rglob("*") if "-" not in path.name)
        examined = await told(house, "--deep", code=0)
        after = sorted(path.name for path in house.state.rglob("*") if "-" not in path.name)
        said = await Desk(house).says("fsck", "--deep")
    assert examined["findings"] == []
    assert (examined["deep"], examined["daemon"]) == (True, False)
    assert examined["seen"]["images"] == 1
    assert examined["seen"]["blobs"] == examined["seen"]["files"] == 2
    assert examined["seen"]["hashed"] > len(LAYER)
    assert said.startswith("1 image, 2 stored blobs, 2 files, ")
    assert set(after) - set(before) <= {"running"}


async def test_wrong_bytes_are_found_by_hashing_only(folder: Path) -> None:
    async with hosts(folder) as house:
        layer = await pulled(house)
        layer.write_bytes(LAYER.swapcase())
        assert (await told(house, code=0))["findings"] == []
        (finding,) = (await told(house, "--deep", code=1))["findings"]
        said = (await Desk(house).run("fsck", "--deep")).stdout
    assert finding["invariant"] == "I2"
    assert f"I2  {finding['where']}: {finding['what']}\n    -> {finding['advice']}\n" in said


async def test_missing_bytes_are_forgotten_by_repair_and_pulled_again(folder: Path) -> None:
    async with hosts(folder) as house:
        layer = await pulled(house)
        layer.unlink()
        (finding,) = (await told(house, code=1))["findings"]
        assert (finding["invariant"], finding["repaired"]) == ("I8", False)
        (finding,) = (await told(house, "--repair", code=0))["findings"]
        assert finding["repaired"]
        assert (await told(house, code=0))["findings"] == []
        await pulled(house)
        assert (await told(house, "--deep", code=0))["seen"]["blobs"] == 2


async def test_without_anything_to_look_at_it_ends_with_2(folder: Path) -> None:
    async with hosts(folder) as house:
        result = await Desk(house).run("fsck")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            f"cacheproxy fsck: {house.state} is not there: no daemon has run with this configuration\n"
        )
        house.file.write_text("nonsense")
        assert (await Desk(house).run("fsck")).exit_code == 2


@pytest.mark.parametrize("offset", [0, 200])
async def test_a_damaged_database_is_said_in_a_line(offset: int, folder: Path) -> None:
    async with hosts(folder) as house:
        await pulled(house)
        database = house.state / "cacheproxy.db"
        with database.open("r+b") as file:
            file.seek(offset)
            file.write(b"x" * 8000)
        result = await Desk(house).run("fsck")
    assert result.exit_code in (1, 2)
    assert "database" in (result.stdout or result.stderr)
    assert result.stderr.count("\n") <= 1
