from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from cacheproxy import config
from cacheproxy.app import main
from cacheproxy.store.audit import Audit
from cacheproxy.store.errors import InUse
from cacheproxy.store.mark import NAME
from cacheproxy.store.running import Running
from tests.commands.desk import Desk
from tests.faults.client import ask
from tests.faults.house import House, Image, hosts
from tests.faults.remains import rows_of
from tests.faults.test_object_store import storage
from tests.postgres import postgres_url as postgres_url
from tests.seaweed import Seaweed

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


@pytest.mark.parametrize("words", [(), ("--repair",)])
async def test_a_store_of_other_rows_is_not_looked_at(folder: Path, words: tuple[str, ...]) -> None:
    """Else all rows would lose their bytes, and all files go."""
    async with hosts(folder) as house:
        layer = await pulled(house)
        (house.state / "blobs" / NAME).unlink()
        result = await Desk(house).run("fsck", *words)
        assert result.exit_code == 2
        assert "is the disk mounted" in result.output
        (house.state / "blobs" / NAME).write_text("another")
        result = await Desk(house).run("fsck", *words)
        assert result.exit_code == 2
        assert "another installation (another)" in result.output
        assert layer.exists()


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


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
async def test_whoever_is_stopped_while_looking_has_found_nothing(
    folder: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error("a fault of ours")

    async with hosts(folder) as house:
        await pulled(house)
        monkeypatch.setattr(Audit, "findings", fail)
        assert (await Desk(house).run("fsck")).exit_code == 2


async def test_a_folder_that_is_not_mounted_is_not_repaired(folder: Path) -> None:
    async with hosts(folder) as house:
        await pulled(house)
        blobs = house.state / "blobs" / "blobs"
        blobs.rename(folder / "elsewhere")
        result = await Desk(house).run("fsck", "--repair")
        assert result.exit_code == 2
        assert "is it mounted?" in result.stderr
        (folder / "elsewhere").rename(blobs)
        assert (await told(house, "--deep", code=0))["findings"] == []


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


async def test_beside_a_running_daemon_it_looks_and_repairs_nothing(folder: Path) -> None:
    async with hosts(folder) as house, house.daemon():
        desk = Desk(house)
        await desk.pull(house.image("library/debian", LAYER))
        examined = await told(house, "--deep", code=0)
        assert (examined["daemon"], examined["seen"]["blobs"], examined["findings"]) == (True, 2, [])
        result = await desk.run("fsck", "--repair")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a daemon runs with this configuration: stop it first" in result.stderr


async def test_while_it_looks_no_daemon_starts(folder: Path) -> None:
    async with hosts(folder) as house:
        await pulled(house)
        looking = Running.take(house.state)
        with pytest.RaisesGroup(InUse, flatten_subgroups=True, allow_unwrapped=True):
            await main(config.load(house.file), trio.Event())
        looking.close()


async def test_after_a_kill_all_is_as_it_should_be(folder: Path) -> None:
    async with hosts(folder, name="127.0.0.1") as house:
        async with house.process():
            await house.pull(house.image("library/debian", LAYER))
        assert (await told(house, "--deep", code=0))["findings"] == []


async def test_old_files_without_a_row_are_removed_by_repair_only(folder: Path) -> None:
    async with hosts(folder) as house:
        layer = await pulled(house)
        orphan = layer.with_name(f"{layer.name.partition('.')[0]}.77")
        orphan.write_bytes(LAYER)
        assert (await told(house, code=0))["findings"] == []
        os.utime(orphan, (0, 0))
        (finding,) = (await told(house, code=1))["findings"]
        assert (finding["invariant"], finding["remedy"], orphan.exists()) == ("I8", "remove", True)
        assert (await told(house, "--repair", code=0))["findings"][0]["repaired"]
        assert (orphan.exists(), layer.exists()) == (False, True)


async def test_an_unfinished_download_past_its_time_is_a_finding(folder: Path) -> None:
    async with hosts(folder) as house:
        await pulled(house)
        name = f"sha256-{'0' * 64}.part"
        unfinished = house.state / "blobs" / "partial" / name
        unfinished.touch()
        assert (await told(house, code=0))["findings"] == []
        os.utime(unfinished, (0, 0))
        (finding,) = (await told(house, code=1))["findings"]
        assert (finding["invariant"], finding["where"], finding["remedy"]) == ("I7", name, None)


async def test_rows_in_postgresql_and_bytes_in_a_bucket(
    folder: Path, postgres_url: str, seaweed_server: Seaweed
) -> None:
    where = f'database = "{postgres_url}"\n{storage(seaweed_server, folder, folder.name)}'
    async with hosts(folder, storage=where) as house:
        image = house.image("library/debian", LAYER)
        await run_and_pull(house, image)
        assert (await told(house, "--deep", code=0))["seen"]["files"] == 2
        bucket = seaweed_server.connect(folder.name)
        (key,) = [key for key, size, _ in bucket.list("blobs/") if size == len(LAYER)]
        bucket.delete(key)
        (finding,) = (await told(house, code=1))["findings"]
        assert (finding["invariant"], finding["where"]) == ("I8", image.layers[0])
        assert (await told(house, "--repair", code=0))["findings"][0]["repaired"]
        assert (await told(house, "--deep", code=0))["findings"] == []


async def run_and_pull(house: House, image: Image) -> None:
    """A daemon whose rows are not in a file, as `House.daemon` takes it to be."""
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(main, config.load(house.file), drain)
        host, _, port = bound["listen"][0].rpartition(":")
        for path in (image.manifest_path(), *map(image.blob_path, image.blobs)):
            assert (await ask((host, int(port)), path)).status == 200
        drain.set()
