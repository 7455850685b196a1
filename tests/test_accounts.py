"""A whole daemon and its accounts: from a challenge by /token to a push, over restarts, until revoked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from cacheproxy.secretkey import NAME
from tests.commands.desk import Desk
from tests.faults.house import House, hosts
from tests.origin.content import sha256
from tests.test_hosting import Client, basic

SETTINGS = """
[[account]]
name = "alice"
secret = {{ file = "{folder}/secret" }}
[[grant]]
to = ["user:alice", "user:carol", "group:ci"]
allow = ["pull", "push", "list", "create"]
repositories = "team/**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[access]
htpasswd = "{folder}/people"
"""

UPLOADS = f"/v2/team/app/blobs/uploads/?digest={sha256(b'layer')}"
SCOPE = "repository:team/app:pull,push"


@asynccontextmanager
async def hosting(folder: Path, database: str = "") -> AsyncIterator[House]:
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0o600)
    (folder / "people").write_bytes(b"carol:" + bcrypt.hashpw(b"pass word", bcrypt.gensalt(4)) + b"\n")
    storage = f'database = "{database}"\nblobs = "{folder}/blobs"' if database else ""
    async with hosts(folder, storage=storage, upstream=SETTINGS.format(folder=folder)) as house:
        yield house


async def token(client: Client, who: dict[str, str], **query: str) -> dict[str, Any]:
    fields = "&".join(f"{name}={value}" for name, value in {"scope": SCOPE, **query}.items())
    told: dict[str, Any] = json.loads(await client.says(f"/token?{fields}", who))
    return told


def bearer(told: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {told['token']}"}


async def test_the_challenge_leads_to_a_token_and_the_token_to_a_push(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house, house.daemon():
        client = Client(house)
        ping = await client.ask("GET", "/v2/", who={})
        assert ping.status == 401
        assert '/token",service="' in ping.headers["www-authenticate"]
        for who in (basic("alice"), basic("carol", "pass word")):
            told = await token(client, who)
            assert SCOPE in told["scope"].split()
            assert (await client.ask("GET", "/v2/", who=bearer(told))).status == 200
            assert (await client.ask("POST", UPLOADS, b"layer", bearer(told))).status == 201
        refused = await client.ask("POST", UPLOADS, b"layer", {})
        assert refused.status == 401
        assert f'scope="{SCOPE}"' in refused.headers["www-authenticate"]
        house.drain()


@pytest.mark.parametrize("path", ["/token", "/v2/", "/v2/team/app/tags/list"])
async def test_a_wrong_login_is_refused_everywhere(tmp_path: Path, path: str) -> None:
    async with hosting(tmp_path) as house, house.daemon():
        client = Client(house)
        for who in (basic("alice", "wrong"), basic("carol", "wrong"), basic("nobody")):
            assert (await client.ask("GET", path, who=who)).status == 401
        house.drain()


async def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house:
        async with house.daemon():
            told = await token(Client(house), basic("alice"), offline_token="true")
            house.drain()
        async with house.daemon():
            client = Client(house)
            assert (await client.ask("POST", UPLOADS, b"layer", bearer(told))).status == 201
            form = f"grant_type=refresh_token&refresh_token={told['refresh_token']}".encode()
            assert (await client.ask("POST", "/token", form, {})).status == 200
            house.drain()


async def test_an_account_comes_and_goes_by_command(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house, house.daemon():
        client, desk = Client(house), Desk(house)
        robot = basic("robot", (await desk.says("account", "add", "robot", "--group", "ci")).strip())
        told = await token(client, robot, offline_token="true")
        assert (await client.ask("POST", UPLOADS, b"layer", bearer(told))).status == 201
        await desk.says("account", "revoke", "robot")
        assert (await client.ask("GET", "/token", who=robot)).status == 401
        form = f"grant_type=refresh_token&refresh_token={told['refresh_token']}".encode()
        assert (await client.ask("POST", "/token", form, {})).status == 401
        house.drain()


async def test_head_of_the_token_server_has_no_body(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house, house.daemon():
        heard = await Client(house).ask("HEAD", f"/token?scope={SCOPE}", who=basic("alice"))
        assert (heard.status, heard.body) == (200, b"")
        assert int(heard.headers["content-length"]) > 100
        house.drain()


async def test_no_secret_is_in_the_log_or_in_what_commands_list(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with hosting(tmp_path) as house:
        house.file.write_text(house.file.read_text().replace("requests = false", 'level = "debug"'))
        async with house.daemon():
            client, desk = Client(house), Desk(house)
            robot = (await desk.says("account", "add", "robot", "--group", "ci")).strip()
            pair = (await desk.says("account", "access-key", "add", "robot")).split()[-1]
            told = await token(client, basic("robot", robot), offline_token="true")
            assert (await client.ask("POST", UPLOADS, b"layer", bearer(told))).status == 201
            assert (
                await client.ask("GET", "/token?scope=x&password=s3cret", who=basic("alice"))
            ).status == 400
            said = [await desk.says("account", "list", "--json"), await desk.says("grant", "list", "--json")]
            said += [await desk.says("account", "access-key", "list", "--json"), *capfd.readouterr()]
            key = (house.state / NAME).read_text().strip()
            house.drain()
    said += capfd.readouterr()
    for secret in (robot, pair, key, "s3cret", told["token"], told["refresh_token"].rpartition(".")[2]):
        assert all(secret not in text for text in said), secret
    assert any("created by a push" in text for text in said)
