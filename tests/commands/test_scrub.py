from __future__ import annotations

from pathlib import Path

from cacheproxy.commands import scrub
from tests.commands.desk import Desk, at_desk
from tests.faults.house import Image

QUICK = 'scrub = { rate = "1GiB" }\nparallel = "never"'
LAYER = bytes(range(256)) * 4096
NOW = 1_000_000.0


def rot(desk: Desk, image: Image) -> Path:
    (file,) = (desk.house.state / "blobs" / "blobs").rglob(f"{image.layers[0].partition(':')[2]}.*")
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    return file


async def test_what_rotted_is_found_and_fetched_anew(folder: Path) -> None:
    async with at_desk(folder, cache=QUICK) as desk:
        image = desk.house.image("library/a", LAYER)
        await desk.pull(image)
        rotten = rot(desk, image)
        result = await desk.run("scrub", "--all", "--wait")
        assert result.exit_code == 1
        assert result.stdout.endswith("2 blobs read: 1 damaged, set aside, fetched anew where possible\n")
        await desk.house.quiet()
        assert not rotten.exists()
        sent = desk.house.registry.origin.bytes_sent(image.layers[0])
        assert sent == 2 * len(LAYER)
        await desk.pull(image)
        assert desk.house.registry.origin.bytes_sent(image.layers[0]) == sent
        said = (await desk.says("scrub")).splitlines()
        assert said[0] == "nothing is due"
        assert said[1].endswith("1 damaged")
        assert said[2] == "1 damaged blob found of late:"
        assert "mismatch" in said[3]
        assert (await desk.tells("status"))["damage"][0]["digest"] == image.layers[0]
        assert "1 damaged blob found of late" in await desk.says("status")
        assert ", was damaged (mismatch) " in await desk.says("explain", "a")


async def test_what_is_sound_is_said_to_be(folder: Path) -> None:
    async with at_desk(folder, cache=QUICK) as desk:
        await desk.pull(desk.house.image("library/a", LAYER))
        assert (await desk.says("scrub", "--all", "--wait")).endswith("in 2 blobs read: all of it sound\n")
        told = await desk.tells("scrub")
        assert (told["checked"]["blobs"], told["damaged"], told["damage"]) == (2, 0, [])


async def test_one_image_is_read_and_no_other(folder: Path) -> None:
    async with at_desk(folder, cache=QUICK) as desk:
        one, other = desk.house.image("library/a", LAYER), desk.house.image("library/b", LAYER[:-1])
        await desk.pull(one)
        await desk.pull(other)
        rot(desk, other)
        assert "in 2 blobs read: all of it sound" in await desk.says("scrub", "a", "--wait")
        assert (await desk.run("scrub", "b", "--wait")).exit_code == 1


async def test_without_waiting_it_says_what_is_to_come(folder: Path) -> None:
    async with at_desk(folder, cache=QUICK) as desk:
        await desk.pull(desk.house.image("library/a", LAYER))
        assert "in 2 blobs to be read" in await desk.says("scrub", "--all")


async def test_what_is_not_here_is_refused(folder: Path) -> None:
    async with at_desk(folder, cache=QUICK) as desk:
        assert "nothing of a is stored here" in await desk.refuses("scrub", "a")


async def test_all_or_some_but_not_both(folder: Path) -> None:
    async with at_desk(folder, cache=QUICK) as desk:
        assert (await desk.run("scrub", "a", "--all")).exit_code == 2


def told(**more: object) -> dict[str, object]:
    some, none = {"blobs": 3, "bytes": 2048}, {"blobs": 0, "bytes": 0}
    state = {"running": False, "asked": none, "due": some, "checked": some, "damaged": 1}
    return {**state, "stopped": "", "damage": [], **more}


def test_how_it_is_is_told() -> None:
    def first(**more: object) -> str:
        return next(scrub.lines(told(**more), NOW))

    assert first() == "2.0 KiB in 3 blobs due, to be read soon"
    assert first(running=True) == "2.0 KiB in 3 blobs to be read, 0 B in 0 blobs of it asked for"
    assert first(stopped="the bucket is away") == "stopped, to be tried again soon: the bucket is away"
    assert first(due={"blobs": 0, "bytes": 0}) == "nothing is due"
