"""A whole daemon and an issuer of tokens: from a job's token to a push, and what becomes of the others."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from cacheproxy import app, systemd
from cacheproxy.config import load
from tests.faults.house import House, hosts
from tests.issuing import Issuing, answer, issuing
from tests.origin.content import sha256
from tests.registry.issuer import EC, RSA, STRANGE, jwks
from tests.test_hosting import Client, basic

SETTINGS = """
[[account]]
name = "alice"
secret = {{ file = "{folder}/secret" }}
[[grant]]
to = ["ci:acme/app", "group:gh-acme", "user:alice"]
allow = ["pull", "push", "list", "create"]
repositories = "team/**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[[access.oidc]]
issuer = "{issuer}"
audience = "cacheproxy"
principal = "ci:{{repository}}"
groups = ["gh-{{repository_owner}}"]
claims = {{ repository_owner = ["acme", "other"] }}
allow_addresses = ["127.0.0.0/8"]
{more}
"""
UPLOADS = f"/v2/team/app/blobs/uploads/?digest={sha256(b'layer')}"
SCOPE = "repository:team/app:pull,push"


@asynccontextmanager
async def hosting(folder: Path, more: str = "") -> AsyncIterator[tuple[House, Issuing]]:
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0o600)
    async with issuing() as issuer:
        text = SETTINGS.format(folder=folder, issuer=issuer.name, more=more)
        async with hosts(folder, upstream=text) as house:
            yield house, issuer


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def told(client: Client, who: dict[str, str], **query: str) -> dict[str, Any]:
    fields = "&".join(f"{name}={value}" for name, value in {"scope": SCOPE, **query}.items())
    said: dict[str, Any] = json.loads(await client.says(f"/token?{fields}", who))
    return said


def inside(token: str) -> dict[str, Any]:
    """What a token says."""
    payload = token.split(".")[1]
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return said


async def test_a_jobs_token_stands_for_a_password_and_as_it_is(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        client, token = Client(house), issuer.token()
        given = await told(client, basic("anything", token), offline_token="true")
        assert SCOPE in given["scope"].split()
        assert "refresh_token" not in given
        assert (await client.ask("POST", UPLOADS, b"layer", bearer(given["token"]))).status == 201
        assert (await client.ask("GET", "/v2/", who=bearer(token))).status == 200
        assert (await client.ask("POST", UPLOADS, b"layer", bearer(token))).status == 201
        assert (await client.ask("POST", UPLOADS, b"layer", basic("x", token))).status == 201
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        assert (await client.ask("POST", UPLOADS, b"layer", basic("alice"))).status == 201
        house.drain()


async def test_a_form_gets_the_same(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        form = f"grant_type=password&username=x&password={issuer.token()}&scope={SCOPE}&access_type=offline"
        client = Client(house)
        heard = await client.ask("POST", "/token", form.encode(), {})
        assert heard.status == 200
        assert "refresh_token" not in json.loads(heard.body)
        house.drain()


async def test_a_token_of_ours_lives_no_longer_than_that_of_the_issuer(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        client, end = Client(house), int(time.time()) + 200
        given = await told(client, basic("x", issuer.token(exp=end)))
        assert inside(given["token"])["exp"] == end
        assert given["expires_in"] <= 200
        given = await told(client, basic("x", issuer.token(exp=end + 10_000)))
        assert given["expires_in"] == 600
        for late in (issuer.token(exp=end - 210), issuer.token(exp=end - 400)):
            heard = await client.ask("GET", "/token", who=basic("x", late))
            assert (heard.status, b"has expired" in heard.body) == (401, True)
        house.drain()


async def test_rights_are_the_principals_and_its_groups(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        client = Client(house)
        of_group = issuer.token(repository="acme/other")
        assert (await client.ask("POST", UPLOADS, b"layer", bearer(of_group))).status == 201
        elsewhere = issuer.token(repository="other/app", repository_owner="other")
        refused = await client.ask("POST", UPLOADS, b"layer", bearer(elsewhere))
        assert refused.status == 403
        assert b"ci:other/app may not push in team/app" in refused.body
        given = await told(client, basic("x", elsewhere))
        assert "push" not in given["scope"]
        house.drain()


async def test_others_are_refused_and_hear_why(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        client = Client(house)
        for token, words in (
            (issuer.token(aud="other"), b"its audience is not"),
            (issuer.token(repository_owner="mallory"), b"that is accepted here"),
            (issuer.token(repository="../../x y"), b"no name of a principal"),
            (issuer.token(STRANGE), b"not its issuer"),
            (issuer.token(RSA), b"does not publish"),
        ):
            for path, who in (
                ("/token", basic("x", token)),
                ("/v2/", bearer(token)),
                ("/v2/", basic("x", token)),
            ):
                heard = await client.ask("GET", path, who=who)
                assert (heard.status, words in heard.body) == (401, True), heard.body
                assert token.encode() not in heard.body
        heard = await client.ask("GET", "/v2/", who=bearer(issuer.token(iss="https://elsewhere.example")))
        assert heard.status == 401
        house.drain()


async def test_an_issuer_that_is_down_is_told_as_that(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        issuer.answers["/keys"] = answer(b"", "500 Internal Server Error")
        client = Client(house)
        for who in (bearer(issuer.token()), basic("x", issuer.token())):
            heard = await client.ask("GET", "/v2/", who=who)
            assert heard.status == 503
            assert b"the keys of http://127.0.0.1" in heard.body
            assert "retry-after" in heard.headers
        assert (await client.ask("GET", "/v2/", who=basic("alice"))).status == 200
        house.drain()


@pytest.mark.parametrize(
    "wrong",
    [
        {"/.well-known/openid-configuration": answer(b"", "302 Found", "Location: http://127.0.0.1/")},
        {
            "/.well-known/openid-configuration": answer(
                b'{"issuer": "https://other.example", "jwks_uri": "x"}'
            )
        },
        {"/.well-known/openid-configuration": answer(b"{}")},
        {"/keys": answer(b"x" * (300 << 10))},
        {"/keys": answer(b'{"keys": []}')},
        {"/keys": answer(jwks(EC), "200 OK", "Content-Encoding: gzip")},
        {"/keys": b"nonsense\r\n\r\n"},
    ],
)
async def test_an_issuer_that_publishes_nonsense_is_not_believed(
    tmp_path: Path, wrong: dict[str, bytes]
) -> None:
    async with hosting(tmp_path) as (house, issuer), house.daemon():
        issuer.answers = wrong
        heard = await Client(house).ask("GET", "/v2/", who=bearer(issuer.token()))
        assert heard.status == 503
        house.drain()


async def test_keys_may_be_in_a_file_and_then_nobody_is_asked(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(EC))
    async with hosting(tmp_path) as (house, issuer):
        text = house.file.read_text()
        house.file.write_text(text.replace('allow_addresses = ["127.0.0.0/8"]\n\n', 'jwks = "keys.json"\n'))
        async with house.daemon():
            assert (await Client(house).ask("GET", "/v2/", who=bearer(issuer.token()))).status == 200
            assert (await Client(house).ask("GET", "/v2/", who=bearer(issuer.token(RSA)))).status == 401
            assert issuer.asked == []
            house.drain()


async def test_an_issuer_at_a_private_address_is_not_asked_unless_listed(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer):
        text = house.file.read_text()
        house.file.write_text(text.replace('allow_addresses = ["127.0.0.0/8"]\n\n', ""))
        async with house.daemon():
            heard = await Client(house).ask("GET", "/v2/", who=bearer(issuer.token()))
            assert heard.status == 503
            assert issuer.asked == []
            house.drain()


async def test_a_claim_may_name_an_account_which_has_to_be_there(tmp_path: Path) -> None:
    async with hosting(tmp_path) as (house, issuer):
        text = house.file.read_text()
        house.file.write_text(
            text.replace('"ci:{repository}"', '"user:{preferred_username}"').replace('"ci:acme/app", ', "")
        )
        async with house.daemon():
            client = Client(house)
            alice = issuer.token(preferred_username="alice")
            given = await told(client, basic("x", alice))
            assert (await client.ask("POST", UPLOADS, b"layer", bearer(given["token"]))).status == 201
            heard = await client.ask("GET", "/v2/", who=bearer(issuer.token(preferred_username="bob")))
            assert (heard.status, b"there is no such account" in heard.body) == (401, True)
            house.drain()


async def test_a_reload_ends_what_an_issuer_vouched_for_and_keeps_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_ready = trio.Event()
    monkeypatch.setattr(systemd, "ready", lambda _: told_ready.set())
    send, hangups = trio.open_memory_channel[int](1)
    async with hosting(tmp_path) as (house, issuer), trio.open_nursery() as nursery:
        drain = trio.Event()
        bound = await nursery.start(partial(app.main, hangups=hangups), load(house.file, {}), drain)
        host, _, port = bound["listen"][0].rpartition(":")
        house._clients = host, int(port)
        client = Client(house)
        given = (await told(client, basic("x", issuer.token())))["token"]

        async def reload() -> None:
            nonlocal told_ready
            told_ready = trio.Event()
            await send.send(signal.SIGHUP)
            with trio.fail_after(30):
                await told_ready.wait()

        issuer.answers["/keys"] = answer(b"", "500 Internal Server Error")
        await reload()
        assert (await client.ask("GET", "/v2/", who=bearer(given))).status == 200
        assert (await client.ask("GET", "/v2/", who=bearer(issuer.token()))).status == 200
        text = house.file.read_text()
        start = text.index("[[access.oidc]]")
        rest = text[start:].partition('["127.0.0.0/8"]\n')[2]
        house.file.write_text(text[:start].replace('"ci:acme/app", ', "") + rest)
        await reload()
        for who in (given, issuer.token()):
            assert (await client.ask("GET", "/v2/", who=bearer(who))).status == 401
        drain.set()
