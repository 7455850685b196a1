from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.desk import at_desk
from tests.origin.content import sha256
from tests.test_accounts import SETTINGS, UPLOADS, bearer, token
from tests.test_hosting import Client, basic

ARGUMENTS = ("grant", "add", "user:alice", "--allow", "pull,push", "-r", "other/**")
OTHER = f"/v2/other/app/blobs/uploads/?digest={sha256(b'layer')}"


@pytest.fixture
def settings(folder: Path) -> str:
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0o600)
    (folder / "people").write_text("")
    return SETTINGS.format(folder=folder)


async def test_a_grant_is_given_listed_and_taken_away(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        assert await desk.says(*ARGUMENTS, "--network", "127.0.0.0/8") == "grant 1 is in force\n"
        declared, given = await desk.tells("grant", "list")
        assert (declared["managed"], declared["to"]) == (True, ["group:ci", "user:alice", "user:carol"])
        assert declared["grant"].startswith(f"{desk.house.file}:")
        assert (given["grant"], given["allow"], given["repositories"], given["networks"]) == (
            "1",
            ["pull", "push"],
            ["other/**"],
            ["127.0.0.0/8"],
        )
        told = await desk.says("grant", "list")
        assert "user:alice" in told
        assert "allow pull,push in other/** from 127.0.0.0/8" in told
        assert await desk.says("grant", "remove", "1") == "grant 1 is gone\n"
        assert "there is no grant 1" in await desk.refuses("grant", "remove", "1")


async def test_the_configurations_grants_are_changed_there_only(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        ((place, *_),) = [list(each.values()) for each in await desk.tells("grant", "list")]
        assert f"take it out of the file, at {place}" in await desk.refuses("grant", "remove", place)
        assert "no grant's number" in await desk.refuses("grant", "remove", "x")


async def test_a_grant_opens_and_closes_at_once(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        client = Client(desk.house)
        told = await token(client, basic("alice"))
        assert (await client.ask("POST", UPLOADS, b"layer", bearer(told))).status == 201
        assert (await client.ask("POST", OTHER, b"layer", basic("alice"))).status == 403
        await desk.says("grant", "add", "*", "--allow", "push,create", "-r", "other/**")
        assert (await client.ask("POST", OTHER, b"layer", basic("alice"))).status == 201
        await desk.says("grant", "add", "user:alice", "--deny", "push", "-r", "**")
        for path, who in ((OTHER, basic("alice")), (UPLOADS, bearer(told)), (UPLOADS, basic("alice"))):
            assert (await client.ask("POST", path, b"layer", who)).status in (401, 403)
        desk.house.drain()


async def test_grants_outlive_a_restart_and_a_reload(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        await desk.says(*ARGUMENTS)
        desk.house.drain()
    async with at_desk(folder, upstream=settings) as desk:
        assert [each["grant"] for each in await desk.tells("grant", "list")][1:] == ["1"]
        assert (
            await Client(desk.house).ask("GET", "/v2/other/a/tags/list", who=basic("alice"))
        ).status == 404
        desk.house.drain()


async def test_where_nobody_has_a_name_no_grant_is_given(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert "nobody has a name here" in await desk.refuses(*ARGUMENTS)
        assert await desk.says("grant", "list") == "there is no grant\n"


async def test_a_grant_either_allows_or_denies(folder: Path) -> None:
    async with at_desk(folder) as desk:
        for words in ((), ("--allow", "pull", "--deny", "push")):
            result = await desk.run("grant", "add", "user:alice", *words, "-r", "**")
            assert (result.exit_code, "either --allow or --deny" in result.output) == (2, True)


async def test_access_is_explained_by_its_rules(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        await desk.says("grant", "add", "user:alice", "--deny", "push", "-r", "team/kept")
        await desk.says("account", "add", "robot", "--group", "ci")
        (told, *_) = (await desk.tells("explain-access", "robot", "team/kept"))["repositories"]
        assert told["rights"] == ["pull", "push", "list", "create"]
        (told, *_) = (await desk.tells("explain-access", "alice", "team/kept"))["repositories"]
        assert told["rights"] == ["pull", "list", "create"]
        reasons = [reason["rule"] for reason in told["because"]]
        assert reasons[0].startswith(f"{desk.house.file}:")
        assert reasons[1:] == ["grant 1, by command", "access.anonymous_pull"]
        said = await desk.says("explain-access", "alice", "team/kept", "--from", "192.0.2.1")
        assert said.startswith("user:alice may in team/kept: pull, list, create\n")
        assert "grant 1, by command" in said
        assert "deny push in team/kept" in said
        assert "anonymous_pull" not in said
        said = await desk.says("explain-access", "anonymous", "team/kept", "--from", "192.0.2.1")
        assert said.startswith("anonymous may in team/kept: nothing\n  no rule says anything of it\n")
        assert "no account 'nobody'" in await desk.refuses("explain-access", "nobody", "team/kept")
        assert "not an address" in await desk.refuses("explain-access", "alice", "a", "--from", "here")


async def test_who_has_no_account_is_explained_by_name_and_groups(folder: Path, settings: str) -> None:
    async with at_desk(folder, upstream=settings) as desk:
        words = ("explain-access", "ci:team/app", "team/app", "--from", "192.0.2.1")
        assert "may in team/app: nothing" in await desk.says(*words)
        said = await desk.says(*words, "--group", "ci", "--group", "other")
        assert said.startswith(
            "ci:team/app (group:ci group:other) may in team/app: pull, push, list, create\n"
        )
