from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.desk import at_desk


async def test_repositories_are_made_listed_set_and_renamed(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert await desk.says("repository", "list") == "no repository is hosted\n"
        options = ("--tags", "immutable", "--except-tags", "dev-*", "--quota", "1GiB", "--label", "a=b")
        assert await desk.says("repository", "create", "team/app", *options) == "created team/app\n"
        line = (await desk.says("repository", "list")).splitlines()[1]
        assert line.split() == ["0", "B", "1.0", "GiB", "0", "immutable", "but", "dev-*", "team/app"]
        await desk.says("repository", "set", "team/app", "--quota", "none", "--label", "a=", "--label", "c=d")
        await desk.says("repository", "rename", "team/app", "team/web")
        (kept,) = await desk.tells("repository", "list")
        assert kept["name"] == "team/web"
        assert kept["settings"] == {"immutable": True, "except_tags": ["dev-*"], "labels": {"c": "d"}}
        assert await desk.says("repository", "delete", "team/web") == "deleted team/web\n"
        assert await desk.tells("repository", "list") == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("docker-hub/library/debian", "of an upstream"),
        ("docker.io/library/debian", "of an upstream"),
        ("other.example/app", "not declared here"),
        ("Team/App", "not"),
        ("taken", "already"),
    ],
)
async def test_a_name_that_cannot_be_a_hosted_repositorys_is_refused(
    folder: Path, name: str, why: str
) -> None:
    async with at_desk(folder) as desk:
        await desk.says("repository", "create", "taken")
        await desk.says("repository", "create", "mine")
        assert why in await desk.refuses("repository", "create", name)
        assert why in await desk.refuses("repository", "rename", "mine", name)
        assert [kept["name"] for kept in await desk.tells("repository", "list")] == ["mine", "taken"]


async def test_what_is_not_there_is_refused(folder: Path) -> None:
    async with at_desk(folder) as desk:
        for words in (("set", "a", "--tags", "mutable"), ("rename", "a", "b"), ("delete", "a")):
            assert "no repository a here" in await desk.refuses("repository", *words)


async def test_what_is_no_setting_is_refused(folder: Path) -> None:
    async with at_desk(folder) as desk:
        refused = await desk.refuses("repository", "create", "a", "--except-tags", "no such!")
        assert "not a pattern" in refused
        assert await desk.tells("repository", "list") == []
