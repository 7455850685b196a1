"""A whole daemon before an upstream that decides for itself: each caller is who it is there."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import httpx
import pytest
import trio

from cacheproxy import behalf, wiring
from cacheproxy.config import load
from cacheproxy.registry.accounts import Accounts
from cacheproxy.registry.authority import Tickets
from cacheproxy.upstream.registry import Registry
from tests.faults.client import Heard, ask, asking
from tests.faults.host import NAME
from tests.faults.house import House, Image, hosts
from tests.origin import faults
from tests.origin.content import OCI_MANIFEST, sha256
from tests.test_hosting import basic
from tests.upstream.stage import scripted

UPSTREAM = """
[[upstream]]
registry = "corp.example"
prefix = "corp"
url = "{url}"
token_hosts = ["{tokens}"]
hosts = ["corp.cache"]
allow_addresses = ["127.0.0.0/8"]
fresh = [{{ tags = "**", for = "1h" }}]
authority = "caller"
"""

SETTINGS = """
[[account]]
name = "alice"
secret = {{ file = "{secret}" }}
[[account]]
name = "robot"
secret = {{ file = "{secret}" }}
[[grant]]
to = ["*"]
allow = ["pull", "push", "list", "create", "admin"]
repositories = "**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
"""

ALICE, BOB = basic("alice", "upstream"), basic("bob", "upstream")


@asynccontextmanager
async def home(folder: Path, auth: str = "bearer") -> AsyncIterator[tuple[House, Image]]:
    """alice and bob have accounts upstream; team/app is alice's, and open/app everybody's."""
    secret = folder / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    async with hosts(folder, missing_for="60s") as house:
        origin = house.registry.origin
        text = UPSTREAM.format(url=house.url(house.registry), tokens=f"{NAME}:{house.auth.port}")
        house.file.write_text(house.file.read_text() + text + SETTINGS.format(secret=secret))
        readers: dict[str, set[str | None]] = {"team/app": {"alice"}, "open/app": {None, "alice", "bob"}}
        for host in (house.registry, house.auth):
            host.origin.auth = auth
            host.origin.users = {"alice": "upstream", "bob": "upstream"}
            host.origin.readers = readers
        assert origin.tokens is house.auth.origin.tokens
        image = house.image("team/app", b"layer" * 1000)
        house.image("open/app", b"public")
        async with house.daemon():
            yield house, image


async def at_home(house: House, path: str, who: dict[str, str] | None = None, method: str = "GET") -> Heard:
    return await ask(house.clients, path, method, {"Host": "corp.cache", **(who or {})})


async def token(house: House, who: dict[str, str] | None, *names: str) -> Heard:
    scopes = "&".join(f"scope=repository:{name}:pull" for name in names)
    return await at_home(house, f"/token?service=corp.cache&{scopes}", who)


async def bearer(house: House, who: dict[str, str] | None, *names: str) -> dict[str, str]:
    heard = await token(house, who, *(names or ("team/app",)))
    assert heard.status == 200, heard
    return {"Authorization": f"Bearer {json.loads(heard.body)['token']}"}


def paths(image: Image) -> list[str]:
    base = f"/v2/{image.repository}"
    return [
        f"{base}/manifests/{image.tag}",
        f"{base}/manifests/{image.digest}",
        *(f"{base}/blobs/{digest}" for digest in image.blobs),
        f"{base}/tags/list",
        f"{base}/referrers/{image.digest}",
    ]


async def pull(house: House, image: Image, who: dict[str, str]) -> None:
    for path in paths(image):
        for method in ("HEAD", "GET"):
            heard = await at_home(house, path, who, method)
            assert (heard.status, heard.whole or method == "HEAD") == (200, True), (path, heard)


async def test_each_caller_is_who_it_is_upstream_also_for_what_is_here(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        await pull(house, image, await bearer(house, ALICE))
        bob = await bearer(house, BOB)
        for path in paths(image):
            for method in ("HEAD", "GET"):
                assert (await at_home(house, path, bob, method)).status == 403, path
        nobody = await bearer(house, None)
        for path in paths(image):
            heard = await at_home(house, path, nobody)
            assert heard.status == 401
            assert 'scope="repository:team/app:pull"' in heard.headers["www-authenticate"]
        house.drain()


async def test_what_everybody_may_read_upstream_takes_an_anonymous_token(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, _):
        anonymous = await bearer(house, None, "open/app")
        assert (await at_home(house, "/v2/open/app/manifests/latest", anonymous)).status == 200
        assert (await at_home(house, f"/v2/open/app/blobs/{sha256(b'public')}", anonymous)).body == b"public"
        house.drain()


async def test_without_a_token_there_is_only_a_challenge(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        await pull(house, image, await bearer(house, ALICE))
        for who in ({}, ALICE, {"Authorization": "Bearer guessed"}, basic("robot")):
            for path in ("/v2/", *paths(image)):
                heard = await at_home(house, path, who)
                assert heard.status == 401
                told = heard.headers["www-authenticate"]
                assert told.startswith('Bearer realm="http://corp.cache/token",service="corp.cache"')
        house.drain()


async def test_a_wrong_login_is_refused_and_too_many_are_told_to_wait(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, _):
        statuses = [401]
        while statuses[-1] == 401:  # pauses grow to a minute: however slow this is, one of them is met
            heard = await token(house, basic("alice", f"guess {len(statuses)}"), "team/app")
            statuses.append(heard.status)
        assert statuses[-1] == 429
        assert len(statuses) > 5
        assert (await token(house, basic("bob", "upstream"), "team/app")).status == 200
        house.drain()


async def test_a_login_alone_is_proven_too(tmp_path: Path) -> None:
    """As `docker login` does it."""
    async with home(tmp_path) as (house, _):
        heard = await token(house, ALICE)
        assert heard.status == 200
        who = {"Authorization": f"Bearer {json.loads(heard.body)['token']}"}
        assert (await at_home(house, "/v2/", who)).status == 200
        assert (await at_home(house, "/v2/team/app/tags/list", who)).status == 401
        assert (await token(house, basic("alice", "wrong"))).status == 401
        house.drain()


async def test_a_form_is_as_good(tmp_path: Path) -> None:
    """As containerd asks first."""
    async with home(tmp_path) as (house, image):
        form = (
            "grant_type=password&service=corp.cache&scope=repository:team/app:pull&username=alice&password="
        )
        for password, status in (("upstream", 200), ("wrong", 401)):
            body = (form + password).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
            headers = {"Host": "corp.cache", **kind}
            async with asking(house.clients, "/token", "POST", headers) as request:
                await request._stream.send_all(body)
                assert (await request.head()).status == status
                told = await request.rest()
            if status == 200:
                await pull(house, image, {"Authorization": f"Bearer {json.loads(told)['token']}"})
        house.drain()


async def test_a_refresh_token_and_too_many_repositories_are_refused(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, _):
        assert (await token(house, ALICE, *(f"team/{n}" for n in range(17)))).status == 400
        body = b"grant_type=refresh_token&refresh_token=x"
        headers = {"Host": "corp.cache", "Content-Length": str(len(body))}
        async with asking(house.clients, "/token", "POST", headers) as request:
            await request._stream.send_all(body)
            assert (await request.head()).status == 401
        assert house.asked("token") == 0
        house.drain()


async def test_what_callers_were_given_outlasts_a_reload(tmp_path: Path) -> None:
    """As long as the upstream's client does: with the same settings."""
    file = tmp_path / "cacheproxy.toml"
    file.write_text(UPSTREAM.format(url="https://registry.example", tokens="a.example"))
    configured, given = load(file), WeakKeyDictionary[Registry, Tickets]()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    async with scripted(answer, by_caller=True) as registry, trio.open_nursery() as nursery:
        routes = wiring.routes(configured)
        before, after = (
            behalf.made(configured, {"corp": registry}, given, Accounts(()), routes, nursery, time.time)
            for _ in range(2)
        )
        text, ticket = await before["corp"]._authority.ticket(None, ["team/app"], None)
        assert after["corp"]._authority.find(text) is ticket


async def test_one_download_serves_all_who_may_have_it(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        house.registry.origin.readers["team/app"] = {"alice", "bob"}
        whos = [await bearer(house, who) for who in (ALICE, BOB) * 4]
        house.registry.origin.latency = 0.05
        heard: list[Heard] = []

        async def get(who: dict[str, str]) -> None:
            heard.append(await at_home(house, f"/v2/team/app/blobs/{image.layers[0]}", who))

        async with trio.open_nursery() as nursery:
            for who in whos:
                nursery.start_soon(get, who)
        assert [(each.status, each.body == b"layer" * 1000) for each in heard] == [(200, True)] * 8
        assert house.registry.origin.blob_transfers(image.layers[0]) == 1
        house.drain()


@pytest.mark.parametrize("name", ["corp/team/app", "corp.example/team/app", "team/app?ns=corp.example"])
async def test_elsewhere_it_is_refused_whoever_asks(tmp_path: Path, name: str) -> None:
    """No account and no network of ours has a say in it, and no token that was given for its own host."""
    async with home(tmp_path) as (house, image):
        who = await bearer(house, ALICE)
        await pull(house, image, who)
        repository, _, query = name.partition("?")
        path = f"/v2/{repository}/manifests/latest" + (f"?{query}" if query else "")
        for login in ({}, basic("robot")):
            heard = await house.ask(path, **login)
            assert (heard.status, heard.error["code"]) == (403, "DENIED")
            assert "corp.cache" in heard.error["message"]
        assert (await house.ask(path, **who)).status == 401
        house.drain()


async def test_the_own_host_is_for_nothing_else(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, _):
        house.image("library/debian", b"debian")
        who = await bearer(house, ALICE)
        assert (await at_home(house, "/v2/library/debian/manifests/latest?ns=docker.io", who)).status == 404
        assert (await at_home(house, "/v2/_catalog", who)).status == 405
        assert (await at_home(house, "/v2/team/app/blobs/uploads/", who, "POST")).status == 403
        assert (await at_home(house, "/v2/team/app/manifests/latest", who, "DELETE")).status == 403
        assert (await at_home(house, "/v2/team/app/manifests/latest?ns=corp.example", who)).status == 200
        house.drain()


async def test_what_is_cached_of_it_is_mounted_nowhere(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        await pull(house, image, await bearer(house, ALICE))
        await house.quiet()
        for source in ("&from=corp/team/app", "&from=corp.example/team/app", ""):
            target = f"/v2/mine/app/blobs/uploads/?mount={image.layers[0]}{source}"
            heard = await ask(house.clients, target, "POST", {"Content-Length": "0", **basic("robot")})
            assert heard.status == 202, (source, heard)
        house.drain()


async def test_a_manifest_that_names_a_private_blob_does_not_get_it(tmp_path: Path) -> None:
    """Whoever knows a digest can write it into a manifest, there or at another upstream."""
    async with home(tmp_path) as (house, image):
        alice = await bearer(house, ALICE)
        await pull(house, image, alice)
        await house.quiet()
        layer = image.layers[0]
        body = image.manifest
        for repository in ("open/app", "library/evil"):
            house.content.add_manifest(repository, body, OCI_MANIFEST, "stolen")
            house.registry.origin.fault({"kind": "blob", "repo": repository}, faults.status(404))
        bob = await bearer(house, BOB, "open/app")
        assert (await at_home(house, "/v2/open/app/manifests/stolen", bob)).status == 200
        assert (await house.ask("/v2/docker-hub/library/evil/manifests/stolen")).status == 200
        for method in ("HEAD", "GET"):
            assert (await at_home(house, f"/v2/open/app/blobs/{layer}", bob, method)).status == 404
            assert (await house.ask(f"/v2/docker-hub/library/evil/blobs/{layer}", method)).status == 404
        before = house.registry.origin.requests("blob")
        assert (await at_home(house, f"/v2/team/app/blobs/{layer}", alice)).status == 200
        assert house.registry.origin.requests("blob") == before, "what was proven once is not asked again"
        house.drain()


async def test_an_upstream_that_is_away_takes_nothing_from_whose_right_was_proven(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        alice = await bearer(house, ALICE)
        bob = await bearer(house, BOB)
        await pull(house, image, alice)
        await house.quiet()
        for host in house.hosts:
            await host.stop()
        await pull(house, image, alice)
        assert (await token(house, ALICE, "team/app")).status == 200
        await pull(house, image, await bearer(house, ALICE))
        for path in paths(image):
            heard = await at_home(house, path, bob)
            assert heard.status in (502, 503), heard
            assert "corp" in heard.error["message"]
        refused = await token(house, basic("carol", "upstream"), "team/app")
        assert refused.status in (502, 503)
        await house.heal()
        house.drain()


async def test_an_upstream_that_fails_proves_nothing(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        await pull(house, image, await bearer(house, ALICE))
        bob = await bearer(house, BOB)
        house.registry.origin.fault({"method": "HEAD"}, faults.status(500))
        house.registry.origin.fault({"kind": "tags"}, faults.status(500))
        for path in paths(image):
            assert (await at_home(house, path, bob)).status == 502, path
        house.drain()


async def test_an_account_of_ours_is_not_shown_upstream(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, _):
        heard = await token(house, basic("robot"), "team/app")
        assert heard.status == 401
        assert "account of this cacheproxy" in heard.error["message"]
        assert house.asked("token") == 0
        house.drain()


async def test_a_login_goes_to_the_realm_and_nowhere_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with home(tmp_path) as (house, image):
        house.registry.origin.redirect_blobs_to = house.url(house.storage)
        await pull(house, image, await bearer(house, ALICE))
        seen = [(host, each) for host in house.hosts for each in host.origin.seen]
        assert {host for host, each in seen if each.authorization == ALICE["Authorization"]} == {house.auth}
        assert {each.kind for host, each in seen if host is house.auth} == {"token"}
        assert all(each.authorization is None for host, each in seen if host is house.storage)
        house.drain()
    secret = ALICE["Authorization"].removeprefix("Basic ")
    written = [path.read_bytes() for path in house.state.rglob("*") if path.is_file()]
    assert not any(word in data for data in written for word in (secret.encode(), b"upstream:upstream"))
    out, err = capfd.readouterr()
    assert secret not in out + err


async def test_basic_is_what_an_upstream_gets_that_asks_for_it(tmp_path: Path) -> None:
    async with home(tmp_path, "basic") as (house, image):
        await pull(house, image, await bearer(house, ALICE))
        bob = await bearer(house, BOB)
        for path in paths(image):
            assert (await at_home(house, path, bob)).status == 403
        assert (await token(house, basic("alice", "wrong"), "team/app")).status == 401
        assert (await token(house, None, "team/app")).status == 401
        house.drain()


async def test_what_went_upstream_is_served_to_whose_right_is_proven(tmp_path: Path) -> None:
    async with home(tmp_path) as (house, image):
        await pull(house, image, await bearer(house, ALICE))
        del house.content.manifests["team/app"][image.digest]
        del house.content.tags["team/app"]["latest"]
        house.registry.origin.readers["team/app"] = {"alice", "bob"}
        heard = await at_home(house, f"/v2/team/app/manifests/{image.digest}", await bearer(house, BOB))
        assert heard.status == 200
        house.drain()
