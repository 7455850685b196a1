from __future__ import annotations

from pathlib import Path

from tests.commands.desk import at_desk

BIG = b"layer" * 1000


async def test_shared_bytes_count_in_each_repository_and_once_in_all(folder: Path) -> None:
    async with at_desk(folder) as desk:
        images = [desk.house.image(name, BIG) for name in ("library/a", "library/b")]
        for image in images:
            await desk.pull(image)
        use = await desk.tells("du")
        said = await desk.says("du")
    sizes = {digest: len(data) for image in images for digest, data in image.blobs.items()}
    assert use["bytes"] == use["upstreams"]["docker-hub"] == sum(sizes.values())
    assert {
        row["repository"]: (row["images"], row["blobs"], row["bytes"]) for row in use["repositories"]
    } == {f"docker-hub/{image.repository}": (1, 2, sum(map(len, image.blobs.values()))) for image in images}
    assert "docker-hub (all)" in said
    assert "4.9 KiB are in more than one repository" in said


async def test_a_store_without_images_has_nothing(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert (await desk.says("du")).splitlines()[-1] == "0 B in 0 blobs stored"
