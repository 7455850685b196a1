from __future__ import annotations

from pathlib import Path

from tests.commands.desk import at_desk


async def test_what_is_pinned_is_listed_and_explained(folder: Path) -> None:
    async with at_desk(folder) as desk:
        await desk.pull(desk.house.image("library/a", b"layer"))
        assert await desk.says("pin") == "nothing is pinned\n"
        assert await desk.says("pin", "a") == "pinned latest of docker-hub/library/a\n"
        assert await desk.tells("pin") == [["docker-hub/library/a", "latest"]]
        assert "pinned by latest: none of it is evicted" in await desk.says("explain", "a")
        assert "no longer pinned" in await desk.says("unpin", "a")
        assert await desk.tells("pin") == []


async def test_what_is_not_here_cannot_be_pinned(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert "is not here; prefetch it first" in await desk.refuses("pin", "a")
        assert "is not pinned" in await desk.refuses("unpin", "a:1")
