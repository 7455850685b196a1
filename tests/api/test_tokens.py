"""The token server, and what its tokens open."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from joserfc.jwk import ECKey

from cacheproxy.api.callers import Callers
from cacheproxy.api.credentials import Credentials
from cacheproxy.api.tokens import TokenServer
from cacheproxy.core.access import Access, Grant
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Right, Rule
from cacheproxy.core.routing import Routes, UpstreamRoute
from cacheproxy.edge.message import Peer, Request
from cacheproxy.registry.accounts import Account, Accounts
from cacheproxy.registry.grants import Standing
from cacheproxy.registry.refresh import RefreshTokens
from cacheproxy.registry.tokens import Tokens
from cacheproxy.store.database import Database
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.tokens import TokenRows

NEAR, FAR = ipaddress.ip_address("10.0.0.9"), ipaddress.ip_address("192.0.2.1")
KEY = ECKey.generate_key("P-256", {"kid": "1"})
HUB = UpstreamRoute("docker.io", "hub", ("hub.cache.example",), library=True, default=True)
RULES = Standing(
    [
        Rule(frozenset({"group:team"}), frozenset(Right), Patterns(("team/**",))),
        Rule(frozenset({"user:alice"}), frozenset({Right.PULL}), Patterns(("hub/library/**",))),
        Rule(frozenset({"*"}), frozenset({Right.DELETE}), Patterns(("team/kept",)), deny=True),
    ]
)
ALICE = Account("alice", "correct horse", frozenset({"team"}))


class OneKey:
    current = KEY

    def find(self, kid: str) -> ECKey | None:
        return KEY if kid == "1" else None


class House:
    def __init__(self, database: Database) -> None:
        self.now = 1_800_000_000.0
        access = Access([Grant((ipaddress.ip_network("10.0.0.0/8"),), Patterns(("public/**",)))])
        self.routes = Routes([HUB])
        self.tokens = Tokens(OneKey(), 600.0, lambda: self.now)
        self.credentials = Credentials(Accounts([ALICE]), self.tokens)
        self.callers = Callers(access, RULES, self.credentials, "", lambda: self.now)
        self.database = database
        self.refresh = RefreshTokens(
            TokenRows(database), self.credentials._accounts, 3600.0, lambda: self.now
        )
        self.server = TokenServer(self.tokens, self.refresh, self.credentials, self.callers, self.routes)

    def has(self, *accounts: Account) -> None:
        self.credentials._accounts = self.refresh._accounts = Accounts(accounts)

    async def get(self, *scopes: str, login: str = "", address: Any = NEAR, **query: str) -> dict[str, Any]:
        asked = urlencode([*(("scope", scope) for scope in scopes), *query.items()])
        return await self.answer(request("GET", f"/token?{asked}", address, basic(login)))

    async def post(self, address: Any = NEAR, **form: str) -> dict[str, Any]:
        return await self.answer(request("POST", "/token", address, {}, urlencode(form).encode()))

    async def answer(self, asked: Request) -> dict[str, Any]:
        response = await self.server.answer(asked)
        assert response.status == 200
        assert ("Cache-Control", "no-store") in response.headers
        assert isinstance(response.body, bytes)
        said: dict[str, Any] = msgspec.json.decode(response.body)
        assert said["token"] == said["access_token"]
        return said

    async def may(self, token: str, right: Right, repository: str, address: Any = NEAR) -> bool:
        headers = {"authorization": f"Bearer {token}"}
        caller = await self.callers.identify(request("GET", "/v2/", address, headers))
        return caller.may(right, repository)


def basic(login: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}


def request(method: str, target: str, address: Any, headers: dict[str, str], body: bytes = b"") -> Request:
    async def read(most: int) -> bytes:
        assert len(body) <= most
        return body

    fields = {"host": "cache.example", **headers}
    return Request(method, target, fields, Peer(address, "http"), "id", read)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield House(database)


LOGIN = "alice:correct horse"


async def test_what_is_granted_is_what_was_asked_and_may_be(house: House) -> None:
    said = await house.get("repository:team/app:pull,push", "repository:other/app:pull,push", login=LOGIN)
    assert said["scope"] == "repository:team/app:pull,push"
    assert said["expires_in"] == 600
    assert said["issued_at"] == "2027-01-15T08:00:00Z"
    assert await house.may(said["token"], Right.PUSH, "team/app")
    assert not await house.may(said["token"], Right.DELETE, "team/app")
    assert not await house.may(said["token"], Right.PUSH, "team/other")
    assert not await house.may(said["token"], Right.PUSH, "other/app")


async def test_all_actions_are_those_that_may_be(house: House) -> None:
    said = await house.get("repository:team/kept:*", login=LOGIN)
    assert said["scope"] == "repository:team/kept:list,pull,push"


async def test_a_token_without_scopes_proves_a_login_and_nothing_more(house: House) -> None:
    said = await house.get(login=LOGIN)
    assert said["scope"] == ""
    assert not await house.may(said["token"], Right.PULL, "team/app")


async def test_names_become_canonical(house: House) -> None:
    for name in ("alpine", "library/alpine", "docker.io/library/alpine", "hub/library/alpine"):
        said = await house.get(f"repository:{name}:pull", login=LOGIN, address=FAR)
        assert await house.may(said["token"], Right.PULL, "hub/library/alpine", FAR), name


async def test_names_are_those_of_the_host_that_the_token_is_for(house: House) -> None:
    said = await house.get("repository:alpine:pull", login=LOGIN, address=FAR, service="hub.cache.example")
    assert "repository:hub/library/alpine:pull" in said["scope"]


async def test_a_bare_name_is_also_a_hosted_repository(house: House) -> None:
    said = await house.get("repository:team/app:pull", login=LOGIN)
    assert await house.may(said["token"], Right.PULL, "team/app")


async def test_the_catalog_has_a_scope_of_its_own(house: House) -> None:
    said = await house.get("registry:catalog:*", login=LOGIN)
    assert said["scope"] == "registry:catalog:*"
    assert await house.may(said["token"], Right.LIST, "team/app")
    assert not await house.may(said["token"], Right.LIST, "other/app")
    assert not await house.may(said["token"], Right.PULL, "team/app")


async def test_an_anonymous_token_is_good_where_its_bearer_may_read_anyway(house: House) -> None:
    said = await house.get("repository:public/app:pull,push", "repository:team/app:pull")
    assert said["scope"] == "repository:public/app:pull"
    assert await house.may(said["token"], Right.PULL, "public/app")
    assert not await house.may(said["token"], Right.PUSH, "public/app")
    assert not await house.may(said["token"], Right.PULL, "public/app", FAR)


async def test_there_is_no_anonymous_token_where_nothing_is_public(house: House) -> None:
    with pytest.raises(OCIError) as refused:
        await house.get("repository:public/app:pull", address=FAR)
    assert refused.value.status == 401


async def test_a_token_of_an_account_that_is_gone_opens_nothing(house: House) -> None:
    said = await house.get("repository:team/app:pull", login=LOGIN)
    house.has()
    with pytest.raises(OCIError) as refused:
        await house.may(said["token"], Right.PULL, "team/app")
    assert refused.value.status == 401


async def test_a_token_ends(house: House) -> None:
    said = await house.get("repository:team/app:pull", login=LOGIN)
    assert await house.may(said["token"], Right.PULL, "team/app")
    house.now += 700
    with pytest.raises(OCIError, match="not valid"):
        await house.may(said["token"], Right.PULL, "team/app")


@pytest.mark.parametrize("login", ["alice:wrong", "alice:", "bob:correct horse", ":", "ALICE:correct horse"])
async def test_a_wrong_login_is_told_and_gets_nothing(house: House, login: str) -> None:
    with pytest.raises(OCIError) as refused:
        await house.get(login=login)
    assert refused.value.status == 401
    assert refused.value.headers == (("WWW-Authenticate", 'Basic realm="cacheproxy"'),)


async def test_a_token_gets_no_token(house: House) -> None:
    said = await house.get("repository:team/app:pull", login=LOGIN)
    bearer = {"authorization": f"Bearer {said['token']}"}
    with pytest.raises(OCIError) as refused:
        await house.answer(request("GET", "/token", NEAR, bearer))
    assert refused.value.status == 401


async def test_a_form_gets_the_same(house: House) -> None:
    said = await house.post(
        grant_type="password",
        username="alice",
        password="correct horse",
        service="cache.example",
        client_id="containerd",
        scope="repository:team/app:pull repository:team/b:pull,push",
    )
    assert said["scope"] == "repository:team/app:pull repository:team/b:pull,push"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 400),
        ({"grant_type": "client_credentials"}, 400),
        ({"grant_type": "password", "username": "alice"}, 400),
        ({"grant_type": "password", "username": "alice", "password": "wrong"}, 401),
    ],
)
async def test_a_form_that_proves_nothing_is_refused(house: House, form: dict[str, str], status: int) -> None:
    with pytest.raises(OCIError) as refused:
        await house.post(**form)
    assert refused.value.status == status


async def test_a_form_that_is_none_is_refused(house: House) -> None:
    for body in (b"\xff\xfe", b"%zz", b"grant_type=%00", b"a=b&" * 100):
        with pytest.raises(OCIError) as refused:
            await house.answer(request("POST", "/token", NEAR, {}, body))
        assert refused.value.status == 400


async def test_other_methods_are_refused(house: House) -> None:
    with pytest.raises(OCIError) as refused:
        await house.answer(request("DELETE", "/token", NEAR, {}))
    assert (refused.value.status, refused.value.headers) == (405, (("Allow", "GET, HEAD, POST"),))


async def test_head_is_answered_as_get_and_makes_nothing_that_nobody_hears(house: House) -> None:
    asked = "/token?offline_token=true&scope=repository:team/app:pull"
    said = await house.answer(request("HEAD", asked, NEAR, basic(LOGIN)))
    assert said["scope"] == "repository:team/app:pull"
    assert "refresh_token" not in said
    with pytest.raises(OCIError, match="wrong"):
        await house.answer(request("HEAD", "/token", NEAR, basic("alice:wrong")))


@pytest.mark.parametrize("scope", ["repository:*:*", "repository:a/../b:pull", "repository:team/**:pull"])
async def test_a_pattern_is_not_a_name(house: House, scope: str) -> None:
    with pytest.raises(OCIError) as refused:
        await house.answer(request("GET", f"/token?scope={quote(scope)}", NEAR, basic(LOGIN)))
    assert refused.value.status == 400


async def refreshed(house: House, refresh: str, *scopes: str, **form: str) -> dict[str, Any]:
    return await house.post(
        grant_type="refresh_token", refresh_token=refresh, scope=" ".join(scopes), client_id="docker", **form
    )


async def test_a_refresh_token_is_given_to_who_asks_for_it_and_has_a_name(house: House) -> None:
    assert "refresh_token" not in await house.get(login=LOGIN)
    assert "refresh_token" not in await house.get(offline_token="true")
    by_form = await house.post(
        grant_type="password", username="alice", password="correct horse", access_type="offline"
    )
    for said in (await house.get(login=LOGIN, offline_token="true"), by_form):
        again = await refreshed(house, said["refresh_token"], "repository:team/app:pull,push")
        assert again["scope"] == "repository:team/app:pull,push"
        assert await house.may(again["token"], Right.PUSH, "team/app")


async def test_a_refresh_token_does_not_widen(house: House) -> None:
    said = await house.get(login=LOGIN, offline_token="true")
    again = await refreshed(house, said["refresh_token"], "repository:other/app:pull,push")
    assert again["scope"] == ""


async def test_who_refreshes_offline_keeps_the_same_one(house: House) -> None:
    said = await house.get(login=LOGIN, offline_token="true")
    again = await refreshed(house, said["refresh_token"], access_type="offline")
    assert again["refresh_token"] == said["refresh_token"]


async def test_a_refresh_token_ends_with_its_time(house: House) -> None:
    said = await house.get(login=LOGIN, offline_token="true")
    house.now += 3601
    with pytest.raises(OCIError, match="log in again"):
        await refreshed(house, said["refresh_token"])


@pytest.mark.parametrize(
    "accounts",
    [(), (Account("alice", "another secret", frozenset({"team"})),), (Account("bob", "correct horse"),)],
)
async def test_a_refresh_token_ends_with_the_account_and_with_its_secret(
    house: House, accounts: tuple[Account, ...]
) -> None:
    said = await house.get(login=LOGIN, offline_token="true")
    house.has(*accounts)
    with pytest.raises(OCIError, match="log in again"):
        await refreshed(house, said["refresh_token"])


async def test_nothing_else_is_a_refresh_token(house: House) -> None:
    said = await house.get(login=LOGIN, offline_token="true")
    name, _, secret = said["refresh_token"].rpartition(".")
    for text in (
        secret,
        f"user:bob.{secret}",
        f"{name}.",
        name,
        f"{name}.{secret}x",
        said["token"],
        "." * 600,
    ):
        with pytest.raises(OCIError) as refused:
            await refreshed(house, text)
        assert refused.value.status == 401


async def test_the_secret_of_a_refresh_token_is_not_kept(house: House) -> None:
    said = await house.get(login=LOGIN, offline_token="true")
    secret = said["refresh_token"].rpartition(".")[2]
    (row,) = await house.database.read(lambda tx: tx.all("SELECT hash, principal FROM refresh_token"))
    assert row[1] == "user:alice"
    assert len(row[0]) == 64
    assert secret not in row[0]
