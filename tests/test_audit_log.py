"""Decisions on record: what a line says, that no secret is in it, and that nothing waits for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from cacheproxy import wiring
from cacheproxy.api.audit import Decision
from cacheproxy.audit_log import AuditLog
from cacheproxy.config import Audit
from cacheproxy.edge.message import Peer, Request
from tests.commands.conftest import unlogged as unlogged
from tests.commands.desk import Desk
from tests.faults.house import House, hosts
from tests.test_hosting import Client, basic
from tests.test_reload import running

SETTINGS = """
[[account]]
name = "alice"
secret = {{ file = "{folder}/secret" }}
[[grant]]
to = ["user:alice"]
allow = ["pull", "push", "list", "create"]
repositories = "team/**"
[[grant]]
to = ["*"]
deny = ["push"]
repositories = "team/fixed"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[audit]
file = "{folder}/audit.log"
{more}
"""


@asynccontextmanager
async def audited(folder: Path, more: str = "") -> AsyncIterator[House]:
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0o600)
    async with hosts(folder, upstream=SETTINGS.format(folder=folder, more=more)) as house, house.daemon():
        yield house
        house.drain()


async def lines(folder: Path, wanted: int) -> list[dict[str, Any]]:
    """Once there are so many."""
    file = folder / "audit.log"
    with trio.fail_after(30):
        while len(text := file.read_text().splitlines() if file.exists() else []) < wanted:
            await trio.sleep(0.02)
    return [json.loads(line) for line in text]


def decision(path: str = "/v2/team/app/manifests/1", rule: str = "c.toml:7") -> Decision:
    async def body(most: int) -> bytes:
        return b""

    headers = {"authorization": "Basic czNjcmV0", "host": "a.test"}
    request = Request("GET", path, headers, Peer(ip_address("10.1.2.3"), "http"), "f00d", body)
    return Decision(request, "user:ci", "pull", "team/app", True, rule)


@asynccontextmanager
async def writing(section: Audit) -> AsyncIterator[AuditLog]:
    log = AuditLog()
    log.enter(await log.prepare(section))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        yield log
        nursery.cancel_scope.cancel()


async def test_a_line_says_who_did_what_from_where_and_by_which_rule(tmp_path: Path) -> None:
    async with writing(Audit(file=str(tmp_path / "audit.log"))) as log:
        log(decision("/v2/team/app/manifests/1?password=s3cret&ns=docker.io"))
    (line,) = await lines(tmp_path, 1)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "event": "decision",
        "request": "f00d",
        "actor": "user:ci",
        "peer": "10.1.2.3",
        "what": "pull",
        "repository": "team/app",
        "allowed": True,
        "rule": "c.toml:7",
        "method": "GET",
        "target": "/v2/team/app/manifests/1?password=...&ns=docker.io",
    }


async def test_what_strangers_write_stays_within_its_line(tmp_path: Path) -> None:
    async with writing(Audit(file=str(tmp_path / "audit.log"))) as log:
        log(decision('/v2/a"\n{"event":"forged"}', "x" * 5000))
    (line,) = await lines(tmp_path, 1)
    assert line["event"] == "decision"
    assert len(line["rule"]) < 600


async def test_after_a_rotation_the_file_is_another(tmp_path: Path) -> None:
    section = Audit(file=str(tmp_path / "audit.log"))
    async with writing(section) as log:
        log(decision(rule="first"))
        await lines(tmp_path, 1)
        (tmp_path / "audit.log").rename(tmp_path / "audit.1")
        log.enter(await log.prepare(section))
        log(decision(rule="second"))
        (line,) = await lines(tmp_path, 1)
    assert line["rule"] == "second"
    assert json.loads((tmp_path / "audit.1").read_text())["rule"] == "first"


async def test_a_disk_that_is_full_loses_lines_and_says_so_once() -> None:
    with structlog.testing.capture_logs() as logs:
        async with writing(Audit(file="/dev/full")) as log:
            for _ in range(3):
                log(decision())
                await trio.sleep(0.5)
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("the audit log is not written; nothing is stopped for that", "No space left on device")
    ]


async def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(wiring.CannotStart, match=r"audit\.file: .*none/audit\.log: No such file"):
        await AuditLog().prepare(Audit(file=str(tmp_path / "none" / "audit.log")))


async def test_what_is_decided_in_a_daemon_is_on_record(tmp_path: Path) -> None:
    async with audited(tmp_path) as house:
        client = Client(house)
        assert (await client.blob("team/app", b"layer")).status == 201
        assert (await client.blob("team/fixed", b"layer")).status == 403
        assert (await client.blob("other/app", b"layer")).status == 403
        assert (await client.ask("GET", "/v2/", who=basic("alice", "wr0ng"))).status == 401
        assert (await client.ask("GET", "/token", who=basic("alice", "wr0ng"))).status == 401
        image = house.image("library/debian", b"layer")
        for _ in range(2):
            assert (await client.ask("GET", image.manifest_path(), who={})).status == 200
        await Desk(house).says("account", "add", "robot")
        text = await lines(tmp_path, 9)
    told = [(line["actor"], line["what"], line["repository"], line["allowed"]) for line in text]
    pull = ("anonymous", "pull", f"docker-hub/{image.repository}", True)
    assert [each for each in told if each[2] != "nowhere.test/a"] == [
        ("user:alice", "push", "team/app", True),
        ("user:alice", "push", "team/fixed", False),
        ("user:alice", "push", "other/app", False),
        ("", "login", "", False),
        ("", "login", "", False),
        pull,
        pull,
        ("operator", "command", "", True),
    ]
    rules = [line["rule"] for line in text if line["repository"] != "nowhere.test/a"]
    assert all("cacheproxy.toml:" in rule for rule in rules[:2])
    assert rules[2] == "no rule gives it"
    assert rules[5] == "access.anonymous_pull"
    assert len({line["request"] for line in text}) == len(text)
    written = (tmp_path / "audit.log").read_text()
    assert "s3cret" not in written
    assert "wr0ng" not in written


async def test_pulls_may_be_left_out_but_not_those_that_are_refused(tmp_path: Path) -> None:
    async with audited(tmp_path, "pulls = false") as house:
        client = Client(house)
        image = house.image("library/debian", b"layer")
        assert (await client.ask("GET", image.manifest_path(), who={})).status == 200
        assert (await client.ask("GET", "/v2/team/secret/manifests/1", who=basic("alice"))).status == 404
        assert (await client.blob("team/fixed", b"layer")).status == 403
        text = await lines(tmp_path, 1)
    assert [(line["what"], line["repository"], line["allowed"]) for line in text] == [
        ("push", "team/fixed", False)
    ]


async def test_a_reload_opens_the_file_again_or_another_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f'audit.file = "{tmp_path}/audit.log"'
    async with running(tmp_path, monkeypatch, more=key) as house:
        assert (await house.ask()).status == 200
        assert len(await lines(tmp_path, 1)) == 1
        (tmp_path / "audit.log").rename(tmp_path / "audit.1")
        await house.reload()
        assert (await house.ask()).status == 200
        assert [line["what"] for line in await lines(tmp_path, 1)] == ["pull"]
        house.write("one.test", more=f'audit.file = "{tmp_path}/none/audit.log"')
        await house.reload()  # which is refused: that from before stays
        assert (await house.ask()).status == 200
        assert len(await lines(tmp_path, 2)) == 2
        house.write("one.test")
        await house.reload()
        assert (await house.ask()).status == 200
    assert len((tmp_path / "audit.log").read_text().splitlines()) == 2
