from __future__ import annotations

from pathlib import Path

from tests.commands.desk import at_desk


async def test_an_account_is_made_listed_and_revoked(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert await desk.says("account", "list") == "no account was made by command\n"
        secret = (await desk.says("account", "add", "robot", "--group", "ci", "--for", "90d")).strip()
        assert len(secret) > 40
        (listed,) = await desk.tells("account", "list")
        assert (listed["name"], listed["groups"]) == ("robot", ["ci"])
        assert round(listed["expires"] - listed["created"]) == 90 * 86400
        assert secret not in str(listed)
        assert (await desk.says("account", "list")).startswith("robot  ci  since ")
        assert "already: revoke it first" in await desk.refuses("account", "add", "robot")
        assert "ends within a minute" in await desk.says("account", "revoke", "robot")
        assert "there is no account robot" in await desk.refuses("account", "revoke", "robot")


async def test_what_is_no_duration_is_told_before_anything_happens(folder: Path) -> None:
    async with at_desk(folder) as desk:
        result = await desk.run("account", "add", "robot", "--for", "soon")
        assert result.exit_code == 2
        assert await desk.tells("account", "list") == []
