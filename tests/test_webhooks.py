"""A whole daemon that tells what happens in it, whatever becomes of it or of who is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from cacheproxy import config, webhooks, wiring
from cacheproxy.core.media import OCI_MANIFEST
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.sqlite import SQLite
from cacheproxy.trial import tried
from tests.commands.conftest import unlogged as unlogged
from tests.commands.desk import Desk
from tests.faults.house import House, hosts
from tests.hooks import Delivered, receiving
from tests.origin.content import sha256
from tests.test_hosting import Client

KEY = b"k" * 32
CONFIG, LAYER = b"{}", b"layer"

SETTINGS = """
[[account]]
name = "alice"
secret = {{ file = "{folder}/secret" }}
[[grant]]
to = ["user:alice"]
allow = ["pull", "push", "list", "create", "delete", "admin"]
repositories = "team/**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[[webhook]]
name = "ci"
url = "{url}"
secret = {{ file = "{folder}/whsec" }}
allow_addresses = ["127.0.0.0/8"]
{more}
"""

ALL = 'events = ["push", "delete", "cache", "repository", "blob"]'


def settings(folder: Path, url: str, more: str = "") -> str:
    for name, text in (("secret", "s3cret"), ("whsec", "whsec_" + base64.b64encode(KEY).decode())):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return SETTINGS.format(folder=folder, url=url, more=more)


def manifest(note: str = "") -> bytes:
    described = [
        {"mediaType": "application/octet-stream", "digest": sha256(blob), "size": len(blob)}
        for blob in (CONFIG, LAYER)
    ]
    said = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}
    return json.dumps({**said, "annotations": {"note": note}}).encode()


async def push(house: House, tag: str, note: str = "", repository: str = "team/app") -> str:
    client, body = Client(house), manifest(note)
    for blob in (CONFIG, LAYER):
        assert (await client.blob(repository, blob)).status == 201
    path = f"/v2/{repository}/manifests/{tag}"
    assert (await client.ask("PUT", path, body, Content_Type=OCI_MANIFEST)).status == 201
    return sha256(body)


def told(deliveries: list[Delivered]) -> list[tuple[str, str]]:
    return [(each.event["type"].removeprefix("cacheproxy."), each.event["subject"]) for each in deliveries]


def signed(delivered: Delivered) -> bool:
    name, at = delivered.headers["webhook-id"], delivered.headers["webhook-timestamp"]
    text = f"{name}.{at}.".encode() + delivered.body
    right = base64.b64encode(hmac.digest(KEY, text, hashlib.sha256)).decode()
    return delivered.headers["webhook-signature"] == f"v1,{right}"


async def test_all_that_happens_to_a_repository_is_told_in_its_order(tmp_path: Path) -> None:
    async with (
        receiving() as hooks,
        hosts(tmp_path, upstream=settings(tmp_path, hooks.url, ALL)) as house,
        house.daemon(),
    ):
        client, desk = Client(house), Desk(house)
        first = await push(house, "1")
        second = await push(house, "1", "another")
        await push(house, "1", "another")  # nothing that is new
        mounted = f"/v2/team/other/blobs/uploads/?mount={sha256(LAYER)}&from=team/app"
        assert (await client.ask("POST", mounted)).status == 201
        assert (await client.ask("DELETE", "/v2/team/app/manifests/1")).status == 202
        assert (await client.ask("DELETE", f"/v2/team/app/manifests/{first}")).status == 202
        assert (await client.ask("DELETE", f"/v2/team/app/manifests/{second}")).status == 202
        assert (await client.ask("DELETE", f"/v2/team/app/blobs/{sha256(LAYER)}")).status == 202
        await desk.says("repository", "rename", "team/app", "team/web")
        await desk.says("repository", "delete", "team/web", "--force")
        await hooks.wait(lambda: len(hooks.taken) >= 13)
        mine = [each for each in hooks.taken if "team/app" in each.event["subject"]]
        assert told(mine) == [
            ("repository.created", "team/app"),
            ("blob.pushed", f"team/app@{sha256(CONFIG)}"),
            ("blob.pushed", f"team/app@{sha256(LAYER)}"),
            ("image.pushed", "team/app:1"),
            ("image.pushed", "team/app:1"),
            ("tag.deleted", "team/app:1"),
            ("image.deleted", f"team/app@{first}"),
            ("image.deleted", f"team/app@{second}"),
            ("blob.deleted", f"team/app@{sha256(LAYER)}"),
        ]
        others = [each for each in hooks.taken if each not in mine]
        assert sorted(told(others)) == [
            ("blob.mounted", f"team/other@{sha256(LAYER)}"),
            ("repository.created", "team/other"),
            ("repository.deleted", "team/web"),
            ("repository.renamed", "team/web"),
        ]
        assert all(map(signed, hooks.taken))
        assert len({each.headers["webhook-id"] for each in hooks.taken}) == 13
        pushed = mine[4].event["data"]
        assert (pushed["digest"], pushed["before"], pushed["media_type"]) == (second, first, OCI_MANIFEST)
        assert (pushed["by"]["actor"], pushed["by"]["method"]) == ("user:alice", "PUT")
        house.drain()


async def test_an_upstreams_image_that_has_come_is_told(tmp_path: Path) -> None:
    more = 'events = ["cache", "push"]\nformat = "ecr"'
    async with (
        receiving() as hooks,
        hosts(tmp_path, upstream=settings(tmp_path, hooks.url, more)) as house,
        house.daemon(),
    ):
        image = house.image("library/alpine", b"layer")
        client = Client(house)
        for _ in range(2):
            assert (await client.ask("GET", image.manifest_path(), who={})).status == 200
        await hooks.wait(lambda: len(hooks.taken) >= 1)
        (delivered,) = hooks.taken
        detail = delivered.event["detail"]
        assert delivered.event["detail-type"] == "ECR Pull Through Cache Action"
        assert (detail["repository-name"], detail["image-digest"]) == (
            "docker-hub/library/alpine",
            image.digest,
        )
        assert (detail["image-tag"], detail["upstream-registry-url"]) == (image.tag, "docker.io")
        house.drain()


async def test_a_receiver_that_is_away_keeps_no_push_and_hears_all_when_it_is_back(tmp_path: Path) -> None:
    async with receiving() as hooks:
        hooks.status = 503
        async with hosts(tmp_path, upstream=settings(tmp_path, hooks.url)) as house, house.daemon():
            desk = Desk(house)
            for number in range(5):
                await push(house, str(number), str(number))
            await hooks.wait(lambda: bool(hooks.tries))
            (condition,) = await desk.tells("events", "status")
            assert (condition["sink"], condition["waiting"], condition["stuck"]) == ("ci", 5, False)
            assert "failing (answered 503)" in await desk.says("events", "status")
            listed = await desk.tells("events", "list", "--sink", "ci")
            assert [each["event"]["tag"] for each in listed] == list("01234")
            hooks.status = 200
            await desk.says("events", "resume", "ci")
            await hooks.wait(lambda: len(hooks.taken) >= 5)
            assert told(hooks.taken) == [("image.pushed", f"team/app:{number}") for number in range(5)]
            await waits(desk, 0)
            house.drain()


async def waits(desk: Desk, count: int) -> None:
    with trio.fail_after(30):
        while (await desk.tells("events", "status"))[0]["waiting"] != count:
            await trio.sleep(0.05)


async def test_what_was_refused_is_seen_replayed_and_dropped(tmp_path: Path) -> None:
    async with receiving() as hooks:
        hooks.status = 422
        async with hosts(tmp_path, upstream=settings(tmp_path, hooks.url)) as house, house.daemon():
            desk = Desk(house)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("cacheproxy.registry.webhooks.REFUSALS", 1)
                await push(house, "1")
                await push(house, "2", "2")
                with trio.fail_after(30):
                    while len(await desk.tells("events", "list", "--dead")) < 2:
                        await trio.sleep(0.05)
            first, second = await desk.tells("events", "list", "--dead")
            assert first["error"] == "answered 422"
            assert "no event" in await desk.refuses("events", "replay", "none")
            hooks.status = 200
            assert await desk.says("events", "replay", first["id"]) == "1 event will be sent again\n"
            await hooks.wait(lambda: len(hooks.taken) >= 1)
            assert hooks.taken[0].headers["webhook-id"] == first["id"]
            assert await desk.says("events", "drop", "--sink", "ci") == "1 event forgotten\n"
            assert await desk.says("events", "list", "--dead") == "none\n"
            assert second["id"] not in {each.headers["webhook-id"] for each in hooks.taken}
            house.drain()


async def test_what_was_committed_when_the_daemon_was_killed_is_told_by_the_next_one(tmp_path: Path) -> None:
    async with receiving() as hooks:
        hooks.status = 503
        async with hosts(tmp_path, upstream=settings(tmp_path, hooks.url)) as house:
            async with house.process() as process:
                digest = await push(house, "1")
                process.kill()
                await process.wait()
            tried = {each.headers["webhook-id"] for each in hooks.tries}
            hooks.status = 200
            async with house.process():
                await hooks.wait(lambda: bool(hooks.taken))
    assert told(hooks.taken) == [("image.pushed", "team/app:1")]
    assert hooks.taken[0].event["data"]["digest"] == digest
    assert tried <= {hooks.taken[0].headers["webhook-id"]}


async def test_an_address_that_is_not_public_is_refused_unless_it_is_listed(tmp_path: Path) -> None:
    async with receiving() as hooks:
        text = settings(tmp_path, hooks.url).replace('allow_addresses = ["127.0.0.0/8"]', "", 1)
        # The upstream's own line is in another table.
        async with hosts(tmp_path, upstream=text) as house, house.daemon():
            desk = Desk(house)
            await push(house, "1")
            with trio.fail_after(30):
                while not (await desk.tells("events", "status"))[0]["failing"]:
                    await trio.sleep(0.05)
            assert "allow_addresses" in await desk.says("events", "status")
            assert hooks.tries == []
            house.drain()


@pytest.mark.parametrize(
    ("secret", "said"),
    [("too short", "whsec_"), ("", "empty")],
)
async def test_what_is_no_secret_is_refused_at_the_start(tmp_path: Path, secret: str, said: str) -> None:
    text = settings(tmp_path, "https://hooks.test/")
    (tmp_path / "whsec").write_text(secret)
    file = tmp_path / "c.toml"
    file.write_text('[[upstream]]\nregistry = "reg.test"\nurl = "http://127.0.0.1:9"\n' + text)
    (section,) = config.load(file).webhooks
    with pytest.raises(wiring.CannotStart, match=said) as refused:
        await webhooks.secrets(section)
    assert "webhook ci" in str(refused.value)
    assert "too short" not in str(refused.value)


async def test_a_webhook_may_come_and_go_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    base = '[[upstream]]\nregistry = "reg.test"\nurl = "http://127.0.0.1:9"\n'
    outbox = Outbox()

    def written(text: str) -> Any:
        file.write_text(base + text)
        return config.load(file)

    async with SQLite.open(tmp_path / "rows.db") as database, trio.open_nursery() as nursery:
        hooks = webhooks.Webhooks(database, outbox, nursery, lambda: 1.0, "one", shared=False)
        one = written(settings(tmp_path, "http://127.0.0.1:9/"))
        (await hooks.prepare(one))()
        assert [sink.name for sink in outbox.sinks] == ["ci"]
        before = hooks.sinks.deliveries["ci"]
        (await hooks.prepare(one))()
        assert hooks.sinks.deliveries["ci"] is before
        (await hooks.prepare(written(settings(tmp_path, "http://127.0.0.1:9/other"))))()
        assert hooks.sinks.deliveries["ci"] is not before
        (await hooks.prepare(written("")))()
        assert (outbox.sinks, dict(hooks.sinks.deliveries)) == ((), {})
        nursery.cancel_scope.cancel()


async def test_check_config_tries_the_secret_and_the_ca(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    file = tmp_path / "c.toml"
    base = '[[upstream]]\nregistry = "reg.test"\nurl = "http://127.0.0.1:9"\n'
    file.write_text(base + settings(tmp_path, "https://hooks.test/", f'ca = "{tmp_path}/ca.pem"'))
    (problem,) = (await tried(config.load(file))).problems
    assert "webhook ci: its ca cannot be used" in problem
    (tmp_path / "whsec").write_text("s3cret")
    (problem,) = (await tried(config.load(file))).problems
    assert "webhook ci: its secret" in problem


async def test_doctor_tells_of_a_webhook(tmp_path: Path) -> None:
    async with receiving() as hooks:
        hooks.status = 410
        async with hosts(tmp_path, upstream=settings(tmp_path, hooks.url)) as house, house.daemon():
            desk = Desk(house)
            await push(house, "1")
            with trio.fail_after(30):
                while not (await desk.tells("events", "status"))[0]["gone"]:
                    await trio.sleep(0.05)
            said = json.loads((await desk.run("doctor", "--json")).stdout)
            (finding,) = [finding for finding in said if finding["what"] == "webhook ci"]
            assert (finding["level"], "wants no more" in finding["said"]) == ("warn", True)
            assert "webhook ci: wants no more (answered 410)" in await desk.says("status")
            house.drain()
