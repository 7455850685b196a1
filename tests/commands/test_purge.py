from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio

from cacheproxy.registry import eviction
from cacheproxy.store.disk import DiskContent
from tests.commands.desk import Desk, at_desk
from tests.faults.client import Heard
from tests.origin import faults
from tests.origin.content import sha256

BIG = b"layer" * 1000


def files(desk: Desk) -> set[str]:
    """Digests of all blobs that have a file."""
    return {f"sha256:{path.name.partition('.')[0]}" for path in desk.house.state.glob("blobs/blobs/*/*/*")}


async def asked(
    desk: Desk, path: str, task_status: trio.TaskStatus[list[Heard]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Started once a fill runs; what is heard comes into the list."""
    heard = list[Heard]()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            heard.append(await desk.house.ask(path))

        nursery.start_soon(ask)
        while not await desk.house.metric("cacheproxy_fills_running"):
            await trio.sleep(0.02)
        task_status.started(heard)


async def test_an_image_goes_with_its_bytes(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.pull(image)
        before = (await desk.tells("status"))["condition"]["cached"]
        told = await desk.tells("purge", "a:latest")
        assert told == {
            "repository": "docker-hub/library/a",
            "tags": ["latest"],
            "images": [image.digest],
            "blobs": 2,
            "bytes": sum(map(len, image.blobs.values())),
            "staying": 0,
        }
        assert files(desk) == set()
        assert (await desk.tells("explain", "a"))["images"] == []
        assert before - (await desk.tells("status"))["condition"]["cached"] == told["bytes"]


async def test_what_was_purged_is_pulled_anew(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.pull(image)
        await desk.says("purge", "a:latest")
        asked = desk.house.asked("blob")
        await desk.pull(image)
        assert desk.house.asked("blob") > asked
        assert files(desk) == set(image.blobs)


async def test_ready_answers_are_dropped(folder: Path) -> None:
    fresh = 'stale_if_error = { for = "0s" }'
    async with at_desk(folder, upstream=fresh) as desk:
        image = desk.house.image("library/a", BIG)
        path = image.manifest_path(image.digest)
        for _ in range(2):
            assert (await desk.house.ask(path)).status == 200
        await desk.says("purge", f"a@{image.digest}")
        await desk.house.registry.stop()
        assert (await desk.house.ask(path)).status != 200


async def test_a_dry_run_tells_the_same_and_changes_nothing(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.pull(image)
        dry = await desk.tells("purge", "--dry-run", "a")
        assert files(desk) == set(image.blobs)
        assert "would remove 1 tag, 1 image" in await desk.says("purge", "--dry-run", "a")
        assert dry == await desk.tells("purge", "a")


async def test_what_another_image_needs_stays(folder: Path) -> None:
    async with at_desk(folder) as desk:
        images = [desk.house.image(name, BIG) for name in ("library/a", "library/b")]
        for image in images:
            await desk.pull(image)
        said = await desk.says("purge", "a")
        assert f"{len(BIG) / 1024:.1f} KiB stay: other images have them too" in said
        assert files(desk) == set(images[1].blobs)
        await desk.pull(images[1])


async def test_a_repository_goes_whole(folder: Path) -> None:
    async with at_desk(folder) as desk:
        for tag in ("1", "2"):
            await desk.pull(desk.house.image("library/a", BIG, tag.encode(), tag=tag))
        told = await desk.tells("purge", "a")
        assert (told["tags"], len(told["images"])) == (["1", "2"], 2)
        assert files(desk) == set()
        assert (await desk.tells("du"))["repositories"] == []


async def test_what_is_pinned_is_not_purged(folder: Path) -> None:
    async with at_desk(folder) as desk:
        await desk.pull(desk.house.image("library/a", BIG))
        await desk.says("pin", "a")
        assert "held by the pin of latest; unpin that first" in await desk.refuses("purge", "a:latest")
        assert "unpin that first" in await desk.refuses("purge", "a")
        await desk.says("unpin", "a")
        await desk.says("purge", "a")


async def test_what_is_not_here_cannot_be_purged(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert "nothing of docker-hub/library/a is here" in await desk.refuses("purge", "a")
        await desk.pull(desk.house.image("library/a", BIG))
        assert "2 of docker-hub/library/a is not here" in await desk.refuses("purge", "a:2")


async def test_a_blob_that_is_arriving_meanwhile_comes_whole_and_does_not_stay(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.house.ask(image.manifest_path(image.tag))
        desk.house.registry.origin.fault({"kind": "blob"}, faults.delay(1.0))
        layer = sha256(BIG)
        async with trio.open_nursery() as nursery:
            heard = await nursery.start(asked, desk, image.blob_path(layer))
            await desk.says("purge", "a:latest")
        assert heard[0].body == BIG
        await desk.house.quiet()
        with trio.fail_after(30):
            while files(desk):
                await trio.sleep(0.02)
        assert (await desk.tells("status"))["condition"]["cached"] == 0


async def test_bytes_that_cannot_be_unlinked_count_until_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "TIDY_EVERY", 0.2)
    real, stuck = DiskContent.remove, True

    def remove(self: DiskContent, location: str) -> bool:
        if stuck:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, location)

    monkeypatch.setattr(DiskContent, "remove", remove)
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.pull(image)
        await desk.says("purge", "a:latest")
        assert (await desk.tells("status"))["condition"]["cached"] == sum(map(len, image.blobs.values()))
        stuck = False
        with trio.fail_after(30):
            while (await desk.tells("status"))["condition"]["cached"]:
                await trio.sleep(0.05)
        assert files(desk) == set()
