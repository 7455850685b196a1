from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio

from cacheproxy.commands.daemon import Daemon, Refused
from cacheproxy.store.disk import DiskContent
from tests.commands.desk import at_desk

BIG = bytes(range(256)) * 8192
PLATFORM = ("--platform", "linux/amd64")


async def test_what_was_prefetched_is_pulled_without_the_upstream(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG, b"small")
        said = await desk.says("prefetch", "a", *PLATFORM)
        assert said == "done    a  2.0 MiB of 2.0 MiB in 3 blobs\n"
        asked = desk.house.asked("blob")
        await desk.pull(image)
        assert desk.house.asked("blob") == asked


async def test_what_is_here_is_not_fetched_again(folder: Path) -> None:
    async with at_desk(folder) as desk:
        await desk.pull(desk.house.image("library/a", BIG))
        asked = desk.house.asked("blob")
        (told,) = await desk.tells("prefetch", "a", *PLATFORM)
        assert desk.house.asked("blob") == asked
    assert (told["state"], told["here"], told["held"]) == ("done", 2, told["size"])


async def test_an_index_is_fetched_for_one_platform(folder: Path) -> None:
    async with at_desk(folder) as desk:
        house = desk.house
        images = [house.image("library/a", BIG, name.encode(), tag=name) for name in ("x", "y")]
        house.content.add_index("library/a", "multi", [image.digest for image in images])
        (told,) = await desk.tells("prefetch", "a:multi", "--platform", "all")
        assert (told["state"], told["here"]) == ("done", 5)


@pytest.mark.parametrize(
    "given", ["amd64", "linux", "Linux/amd64", "linux/", "linux/arm/v7/x", "linux/amd64,all"]
)
async def test_a_platform_that_is_none_is_refused(given: str, folder: Path) -> None:
    async with at_desk(folder) as desk:
        desk.house.image("library/a", BIG)
        result = await desk.run("prefetch", "a", "--platform", given)
        assert desk.house.asked("blob") == 0
    assert result.exit_code == 2
    assert 'write it as "linux/arm64"' in result.stderr


async def test_one_image_that_fails_stops_no_other(folder: Path) -> None:
    async with at_desk(folder) as desk:
        desk.house.image("library/a", BIG)
        result = await desk.run("prefetch", "none", "a", *PLATFORM)
    assert result.exit_code == 1
    failed, done = result.stdout.splitlines()
    assert failed.startswith("failed  none  ")
    assert done.startswith("done    a  ")


async def test_what_there_is_no_room_for_is_said(folder: Path) -> None:
    async with at_desk(folder, cache='budget = "1KiB"\nparallel = "never"') as desk:
        desk.house.image("library/a", BIG)
        result = await desk.run("prefetch", "a", *PLATFORM)
    assert result.exit_code == 1
    assert "no room for 1 blob" in result.stdout


async def test_a_disk_that_takes_nothing_is_not_said_to_be_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    async with at_desk(folder) as desk:
        desk.house.image("library/a", BIG)
        monkeypatch.setattr(DiskContent, "partial", read_only)
        result = await desk.run("prefetch", "a", *PLATFORM)
    assert result.exit_code == 1
    assert "2 blobs not kept: [Errno 30] Read-only file system" in result.stdout


async def test_a_job_that_nobody_knows_is_refused(folder: Path) -> None:
    async with at_desk(folder) as desk:
        daemon = Daemon([desk.house.state / "admin.sock"])
        with pytest.raises(Refused, match="there is no job x"):
            await trio.to_thread.run_sync(lambda: daemon.get("/job", job="x"))


async def test_a_name_that_is_none_is_refused(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert "not a repository name" in await desk.refuses("prefetch", "A")
