from __future__ import annotations

import json
import os
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import apsw
import pytest

from cacheproxy import config
from cacheproxy.commands import checks, doctor, outside, stores
from cacheproxy.commands.checks import Finding
from cacheproxy.commands.daemon import Daemon
from cacheproxy.store.mark import NAME
from cacheproxy.store.postgres import Postgres
from cacheproxy.store.postgres_probe import Condition
from tests.collector import collector
from tests.commands.desk import Desk, at_desk
from tests.faults.house import House, hosts
from tests.google import Google
from tests.origin import faults
from tests.postgres import postgres_url as postgres_url
from tests.seaweed import BUCKET, SECRET_KEY, Seaweed
from tests.store.test_lifecycle import ABORT, RULE, rules


async def findings(desk: Desk) -> dict[str, Any]:
    """By what they are about; an upstream of this configuration always fails, nowhere.test."""
    result = await desk.run("doctor", "--json")
    assert result.exit_code == 1
    found = {row["what"]: row for row in json.loads(result.stdout)}
    assert found["nowhere.test"]["level"] == "fail"
    return found


async def test_a_house_in_order_is_fine(folder: Path) -> None:
    async with at_desk(folder) as desk:
        desk.house.registry.origin.fault({"method": "GET"}, faults.header("Date", formatdate(usegmt=True)))
        found = await findings(desk)
        said = (await desk.run("doctor")).stdout
    assert {what: row["level"] for what, row in found.items() if what != "nowhere.test"} == {
        "daemon": "ok",
        "state and database": "ok",
        "blobs": "ok",
        "disk": "ok",
        "docker-hub": "ok",
        "clock": "ok",
    }
    assert found["daemon"]["said"] == f"is running as user {os.geteuid()}"
    assert "fail  nowhere.test" in said
    assert "      -> look at its url and at /etc/resolv.conf" in said


async def test_without_a_daemon_the_rest_is_looked_at(folder: Path) -> None:
    async with hosts(folder) as house:
        found = await findings(Desk(house))
    assert found["daemon"]["level"] == "warn"
    assert found["state and database"]["advice"] == "the daemon makes it at its first start"
    assert found["docker-hub"]["level"] == "ok"


async def test_a_store_that_is_not_mounted_is_found(folder: Path) -> None:
    async with hosts(folder) as house:
        async with house.daemon():
            await Desk(house).pull(house.image("library/debian", b"a layer"))
        assert "mark" not in await findings(Desk(house))
        (house.state / "blobs" / NAME).unlink()
        found = await findings(Desk(house))
    assert found["mark"]["level"] == "fail"
    assert "is the disk mounted" in found["mark"]["said"]


async def test_files_that_no_sweep_dares_to_remove_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"/status": {"condition": {"sweep_stopped": "7 of 8 files"}}, "/webhooks": []}
    monkeypatch.setattr(Daemon, "get", lambda _, path: said[path])
    async with at_desk(folder) as desk:
        found = await findings(desk)
    assert (found["sweep"]["level"], found["sweep"]["said"]) == ("fail", "7 of 8 files")


async def test_a_login_that_is_refused_is_found(folder: Path) -> None:
    (folder / "secret").write_text("wrong")
    login = 'credentials = { username = "builder", password = { file = "secret" } }'
    async with hosts(folder, upstream=login) as house:
        house.registry.origin.auth = "bearer"
        house.registry.origin.users["builder"] = house.auth.origin.users["builder"] = "right"
        found = await findings(Desk(house))
        assert found["docker-hub"]["level"] == "fail"
        assert found["docker-hub"]["advice"] == "look at the credentials of this upstream"
        (folder / "secret").write_text("right")
        found = await findings(Desk(house))
    assert found["docker-hub"]["level"] == "ok"
    assert "with its credentials" in found["docker-hub"]["said"]


async def test_credentials_that_cannot_be_had_are_told(folder: Path) -> None:
    login = 'credentials = { username = "builder", password = { command = ["false"] } }'
    async with hosts(folder, upstream=login) as house:
        house.registry.origin.auth = "bearer"
        found = await findings(Desk(house))
    assert found["docker-hub"]["level"] == "fail"
    assert "false" in found["docker-hub"]["said"]


async def test_an_upstream_that_is_gone_is_found(folder: Path) -> None:
    async with hosts(folder) as house:
        await house.registry.stop()
        found = await findings(Desk(house))
    assert (found["docker-hub"]["level"], found["clock"]["level"]) == ("fail", "warn")
    assert "firewall" in found["docker-hub"]["advice"]


@pytest.mark.parametrize(
    ("skews", "level"), [([0.4], "ok"), ([-0.4, 0.2, 900.0], "ok"), ([30.0], "warn"), ([-600.0], "fail")]
)
def test_the_clock_is_judged_by_most_upstreams(skews: list[float], level: str) -> None:
    answers = [outside._Answer(Finding("ok", "x", ""), skew) for skew in skews]
    assert [finding.level for finding in outside._clock(answers)] == [level]


def loaded(folder: Path, cache: str = "") -> config.Config:
    (folder / "c.toml").write_text(f'[storage]\nstate = "{folder}/state"\n[cache]\n{cache}')
    return config.load(folder / "c.toml", {})


@pytest.mark.parametrize(
    ("file", "expected"), [(None, True), (Path("/etc/cacheproxy/c.toml"), True), (Path("c.toml"), False)]
)
def test_the_services_state_is_where_its_manager_puts_it(
    file: Path | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr(doctor, "SERVICE_STATE", tmp_path)
    doctor._as_the_service(file)
    assert os.environ.get("STATE_DIRECTORY") == (str(tmp_path) if expected else None)


def test_a_folder_of_another_user_is_found(tmp_path: Path) -> None:
    (tmp_path / "state" / "blobs").mkdir(parents=True, mode=0o700)
    found = list(checks.folders(loaded(tmp_path), os.geteuid() + 1))
    assert [finding.level for finding in found] == ["fail", "fail"]
    assert found[0].advice.startswith("chown")


def test_a_folder_that_everybody_may_look_into_is_found(tmp_path: Path) -> None:
    (tmp_path / "state" / "blobs").mkdir(parents=True)
    (tmp_path / "state" / "blobs").chmod(0o755)
    state, blobs = checks.folders(loaded(tmp_path), None)
    assert (state.level, blobs.advice) == ("ok", f"chmod o= {tmp_path}/state/blobs")


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    (finding, *_) = checks.disk(loaded(tmp_path, 'min_free = "100%"'))
    assert finding.level == "fail"


def test_a_disk_that_nothing_can_be_written_to_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = list(os.statvfs(tmp_path))
    state[8] |= os.ST_RDONLY  # f_flag
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(state))
    found = {finding.what: finding.level for finding in checks.disk(loaded(tmp_path))}
    assert found["read-only"] == "fail"


def test_a_budget_beyond_the_disk_is_found(tmp_path: Path) -> None:
    assert [finding.what for finding in checks.disk(loaded(tmp_path, 'budget = "100%"'))] == [
        "disk",
        "budget",
    ]


def storage(server: Seaweed, folder: Path) -> str:
    (folder / "s3.ini").write_text(server.credentials)
    return f"""
blobs = "s3://{BUCKET}/doctor"
[storage.objects]
endpoint = "{server.endpoint}"
region = "us-east-1"
credentials = {{ file = "s3.ini" }}
"""


async def test_a_bucket_that_does_all_is_fine(folder: Path, seaweed_server: Seaweed) -> None:
    async with hosts(folder, storage=storage(seaweed_server, folder)) as house:
        found = await findings(Desk(house))
        levels = {what: found[what]["level"] for what in ("objects", "listing", "redirects", "uploads")}
        assert levels == {"objects": "ok", "listing": "ok", "redirects": "ok", "uploads": "warn"}
        assert found["uploads"]["said"] == "no rule of the bucket ends unfinished ones"
        rule = RULE.format(prefix="", status="Enabled", **ABORT)
        assert rules(seaweed_server, "PUT", rule) == 200
        assert (await findings(Desk(house)))["uploads"]["level"] == "ok"
        rules(seaweed_server, "DELETE")
        (folder / "s3.ini").write_text(seaweed_server.credentials.replace(SECRET_KEY, "another"))
        found = await findings(Desk(house))
    assert found["objects"]["level"] == "fail"
    assert "403" in found["objects"]["said"]


async def test_whose_keys_only_the_store_knows_rules_cannot_be_told(
    folder: Path, google_server: Google
) -> None:
    async with hosts(folder, storage=google_server.storage("doctor", folder / "keys.json")) as house:
        found = await findings(Desk(house))
    assert (found["objects"]["level"], found["uploads"]["level"]) == ("ok", "warn")
    assert "could not be told" in found["uploads"]["said"]


async def test_a_file_of_a_later_version_is_told_before_a_daemon_is(folder: Path) -> None:
    async with hosts(folder) as house:
        async with house.process():
            pass
        assert "rows" not in await findings(Desk(house))
        with closing(apsw.Connection(str(house.state / "cacheproxy.db"))) as connection:
            connection.execute("DELETE FROM migration WHERE number > 1")
            assert (await findings(Desk(house)))["schema"]["level"] == "warn"
            connection.execute("INSERT INTO migration VALUES (999, 'x')")
        found = (await findings(Desk(house)))["rows"]
    assert (found["level"], "written by a newer cacheproxy" in found["said"]) == ("fail", True)


async def test_a_collector_that_takes_spans_is_fine(folder: Path) -> None:
    async with collector() as at, hosts(folder) as house:
        add_traces(house, at.url)
        found = await findings(Desk(house))
    assert (found["traces"]["level"], at.requests, at.spans) == ("ok", 1, [])


async def test_one_that_takes_none_is_told(folder: Path) -> None:
    async with collector() as at, hosts(folder) as house:
        add_traces(house, at.url)
        at.status = 401
        found = await findings(Desk(house))
    assert found["traces"]["level"] == "warn"
    assert "the collector answered 401" in found["traces"]["said"]


def add_traces(house: House, endpoint: str) -> None:
    house.file.write_text(f'{house.file.read_text()}\n[traces]\nendpoint = "{endpoint}"\n')


async def test_a_database_that_is_not_there_yet_or_not_at_all(folder: Path, postgres_url: str) -> None:
    async with hosts(folder, storage=f'database = "{postgres_url}"') as house:
        found = await findings(Desk(house))
        assert (found["postgres"]["level"], found["postgres schema"]["level"]) == ("ok", "warn")
        async with Postgres.open(postgres_url):  # as a daemon does
            found = await findings(Desk(house))
        assert found["postgres"]["level"] == "ok"
        assert "postgres schema" not in found
    async with hosts(folder, storage='database = "postgresql:///rows?host=/nowhere"') as house:
        found = await findings(Desk(house))
    assert found["postgres"]["level"] == "fail"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("18", [], [], "", True, 1.0), ["ok"]),
        (Condition("18", ["x"], [], "", True, 0.0), ["ok", "fail"]),
        (Condition("18", [], ["x"], "y", True, -99.0), ["ok", "fail", "warn", "warn"]),
        (Condition("18", [], [], "y", False, 0.0), ["ok", "fail"]),
    ],
)
def test_how_a_database_is_judged(condition: Condition, expected: list[str]) -> None:
    assert [finding.level for finding in stores._judged(condition)] == expected
