"""A changed configuration in a running daemon: in force at once and whole, or not at all."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial as bind
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from cacheproxy import app, hosting, log, systemd, wiring
from cacheproxy.config import load
from cacheproxy.config.sections import Log
from cacheproxy.store import probe
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.errors import StoreBusy, StoreUnreachable
from cacheproxy.upstream.registry import Registry
from tests.faults.client import Address, Heard, ask, asking
from tests.origin import Origin
from tests.origin.content import sha256
from tests.origin.plan import Plan
from tests.seaweed import BUCKET, Seaweed

MANIFEST = "/v2/one.test/team/app/manifests/1"
LAYER = bytes(3 << 20)
"""Large enough that clients get some of it before all of it is here."""
BLOB = f"/v2/one.test/team/app/blobs/{sha256(LAYER)}"


class House:
    """A daemon, its file, and upstreams: one.test, which is configured at first, and two.test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "c.toml"
        self.origins = {"one.test": Origin(), "two.test": Origin()}
        self.hangup, self.hangups = trio.open_memory_channel[int](1)
        self.bound: dict[str, list[str]] = {}
        self.clients: list[weakref.ref[Registry]] = []
        """All that were ever opened."""
        self.logs: list[Log] = []
        """What the log was told to be."""
        self._told = trio.Event()

    def write(self, *names: str, more: str = "", keys: str = "") -> None:
        """Upstreams with `keys`; `more` are keys of other tables."""
        upstreams = (
            f'[[upstream]]\nregistry = "{name}"\nurl = "{self.origins[name].url}"\n'
            f'allow_addresses = ["127.0.0.0/8"]\n{keys}\n'
            for name in names
        )
        self.file.write_text(
            f'{more}\nserver.listen = ["127.0.0.1:0"]\nserver.metrics = "127.0.0.1:0"\n'
            f'storage.state = "state"\n{"".join(upstreams)}'
        )

    def opened(self, *arguments: Any) -> Registry:
        registry = Registry(*arguments)
        self.clients.append(weakref.ref(registry))
        return registry

    def ready(self, status: str) -> None:
        self._told.set()

    async def reload(self) -> None:
        self._told = trio.Event()
        await self.hangup.send(signal.SIGHUP)
        with trio.fail_after(30):
            await self._told.wait()

    def address(self, door: str = "listen") -> Address:
        host, _, port = self.bound[door][0].rpartition(":")
        return host, int(port)

    async def ask(self, path: str = MANIFEST) -> Heard:
        return await ask(self.address(), path)

    async def alive(self, count: int) -> None:
        """Wait until so many clients of upstreams are left."""
        with trio.fail_after(30):
            while gc.collect() >= 0 and sum(client() is not None for client in self.clients) != count:
                await trio.sleep(0.01)


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> AsyncIterator[House]:
    house, drain = House(folder), trio.Event()
    monkeypatch.setattr(wiring, "Registry", house.opened)
    monkeypatch.setattr(systemd, "ready", house.ready)
    monkeypatch.setattr(log, "configure", house.logs.append)
    async with trio.open_nursery() as nursery:
        for origin in house.origins.values():
            origin.add_image("team/app", "1", layers=(LAYER,))
            await nursery.start(origin.serve)
        house.write("one.test", more=more)
        daemon = bind(app.main, load(house.file, {}), drain, hangups=house.hangups)
        async with trio.open_nursery() as around:
            house.bound = dict(await around.start(daemon))
            yield house
            drain.set()
        nursery.cancel_scope.cancel()


async def test_who_may_pull_no_more_gets_no_ready_answer_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as house:
        assert [(await house.ask()).status for _ in range(3)] == [200, 200, 200]
        house.write("one.test", more="access.anonymous_pull = []")
        await house.reload()
        assert (await house.ask()).status == 403
        house.write("one.test")
        await house.reload()
        assert (await house.ask()).status == 200


async def test_upstreams_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as house:
        other = MANIFEST.replace("one", "two")
        assert ((await house.ask()).status, (await house.ask(other)).status) == (200, 404)
        house.write("two.test")
        await house.reload()
        assert ((await house.ask()).status, (await house.ask(other)).status) == (404, 200)
        await house.alive(1)


async def test_an_upstream_that_did_not_change_keeps_its_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as house:
        house.write("one.test", "two.test", keys='missing_for = "1s"')
        await house.reload()
        assert len(house.clients) == 2
        house.write("one.test", "two.test", keys="connections = 3")
        await house.reload()
        assert len(house.clients) == 4
        await house.alive(2)


async def test_a_download_goes_on_although_its_upstream_was_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: list[Plan] = []

    def slowly(plan: Plan) -> None:
        plan.rate = 100_000.0  # half a minute: a reload takes its time on a busy machine
        slow.append(plan)

    async with running(tmp_path, monkeypatch) as house:
        await house.ask()
        house.origins["one.test"].fault({"kind": "blob"}, slowly)
        async with asking(house.address(), BLOB) as asked:
            assert (await asked.head()).status == 200
            begun = await asked.take(50_000)
            house.write("two.test")
            await house.reload()
            assert (await house.ask()).status == 404
            await house.alive(2)  # it still needs its client
            slow[0].rate = None
            assert begun + await asked.rest() == LAYER
        await house.alive(1)


async def test_freshness_is_another_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as house:
        seen = house.origins["one.test"].seen
        await house.ask()
        await house.ask()
        before = len(seen)
        house.write("one.test", keys='fresh = [{ tags = "**", for = "0s" }]')
        await house.reload()
        await house.ask()
        await house.ask()
        assert len(seen) == before + 2


async def test_limits_of_the_cache_are_others_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as house:
        await house.ask()
        house.write("one.test", more='cache.budget = "1KiB"')
        await house.reload()
        metrics = (await ask(house.address("metrics"), "/metrics")).body
        assert b"cacheproxy_budget_bytes 1024.0" in metrics
        await house.ask(BLOB)
        assert not list((tmp_path / "state" / "blobs" / "blobs").rglob("*.*"))


async def test_the_log_is_told_of_its_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as house:
        house.write("one.test", more='log.level = "error"')
        await house.reload()
        assert [settings.level for settings in house.logs] == ["error"]


async def test_requests_are_logged_as_the_file_says_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, monkeypatch) as house:
        await house.ask(MANIFEST + "?n=before")
        house.write("one.test", more="log.requests = false")
        await house.reload()
        await house.ask(MANIFEST + "?n=between")
        house.write("one.test")
        await house.reload()
        await house.ask(MANIFEST + "?n=after")
    lines = [line for line in capfd.readouterr().err.splitlines() if '"event":"request"' in line]
    assert [line.partition("?n=")[2].partition('"')[0] for line in lines] == ["before", "after"]


async def test_no_request_fails_while_the_configuration_changes_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: set[int] = set()

    async def ask_on() -> None:
        while True:
            statuses.add((await house.ask(next(paths))).status)

    async with running(tmp_path, monkeypatch) as house:
        paths = itertools.cycle([MANIFEST, BLOB, MANIFEST.replace("manifests/1", "tags/list")])
        async with trio.open_nursery() as clients:
            for _ in range(8):
                clients.start_soon(ask_on)
            for turn in range(10):
                house.write(
                    "one.test", more=f'cache.budget = "{turn + 1}GiB"', keys=f"connections = {turn + 1}"
                )
                await house.reload()
            clients.cancel_scope.cancel()
        assert statuses == {200}
        await house.alive(1)


def bad_words(house: House) -> None:
    house.write("two.test", more='cache.budget = "huge"\nserver.workers = 7')


def bad_authority(house: House) -> None:
    (house.folder / "ca.pem").write_text("nobody")
    house.write("one.test", "two.test", more="access.anonymous_pull = []", keys='ca = "ca.pem"')


def no_file(house: House) -> None:
    house.file.unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bad_words, ["cache.budget: 'huge'", "server.workers: 7 workers"]),
        (bad_authority, ["upstream one.test: its ca cannot be used"]),
        (no_file, ["cannot be read"]),
    ],
)
async def test_a_bad_configuration_is_refused_whole(
    change: Callable[[House], None], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as house:
        with structlog.testing.capture_logs() as told:
            change(house)
            await house.reload()
        problems = [line["problem"] for line in told if line["event"] == "configuration refused"]
        assert len(problems) == len(words)
        assert all(word in problem for word, problem in zip(words, sorted(problems), strict=True))
        assert told[-1]["event"] == "the configuration from before stays"
        assert house.logs == []
        assert (await house.ask()).status == 200
        assert (await house.ask(MANIFEST.replace("one", "two"))).status == 404
        await house.alive(1)
        house.write("two.test")
        await house.reload()
        assert (await house.ask(MANIFEST.replace("one", "two"))).status == 200


async def test_a_database_that_is_away_ends_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreBusy(errno.EHOSTDOWN, "the database does not answer")

    async with running(tmp_path, monkeypatch) as house:
        monkeypatch.setattr(hosting, "accounts", away)
        house.write("one.test", "two.test")
        with structlog.testing.capture_logs() as told:
            await house.reload()
        assert [line["problem"] for line in told if line["event"] == "configuration refused"] == [
            "[Errno 112] the database does not answer"
        ]
        assert (await house.ask()).status == 200
        assert (await house.ask(MANIFEST.replace("one", "two"))).status == 404


async def test_what_takes_a_restart_is_said_and_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as house:
        more = 'storage.database = "other.db"\nstorage.objects.region = "eu"\n'
        house.write("one.test", "two.test", more=more)
        for _ in range(2):  # it stays true
            with structlog.testing.capture_logs() as told:
                await house.reload()
            warnings = [line for line in told if line["log_level"] == "warning"]
            assert [line["keys"] for line in warnings] == ["storage.database storage.objects.region"]
        assert not (tmp_path / "state" / "other.db").exists()
        assert (await house.ask(MANIFEST.replace("one", "two"))).status == 200


async def test_whose_word_about_clients_counts_is_another_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = {"X-Forwarded-For": "127.0.0.9"}
    async with running(tmp_path, monkeypatch) as house:
        assert (await ask(house.address(), MANIFEST, headers=proxied)).status == 403
        house.write("one.test", more='server.trusted_proxies = ["127.0.0.1"]')
        await house.reload()
        assert (await ask(house.address(), MANIFEST, headers=proxied)).status == 200
        house.write("one.test")
        await house.reload()
        assert (await ask(house.address(), MANIFEST, headers=proxied)).status == 403


def bucket(server: Seaweed, folder: Path) -> str:
    (folder / "s3.ini").write_text(server.credentials)
    return (
        f'storage.blobs = "s3://{BUCKET}/{folder.name}"\nstorage.objects.endpoint = "{server.endpoint}"\n'
        'storage.objects.region = "us-east-1"\nstorage.objects.credentials = { file = "s3.ini" }\n'
    )


REDIRECT = 'storage.objects.redirect = ["127.0.0.0/8"]\n'


async def test_clients_are_redirected_to_the_bucket_at_once_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seaweed_server: Seaweed
) -> None:
    more = bucket(seaweed_server, tmp_path)
    async with running(tmp_path, monkeypatch, more) as house:
        assert (await house.ask(BLOB)).body == LAYER
        house.write("one.test", more=more + REDIRECT)
        await house.reload()
        with trio.fail_after(30):  # it is still on its way up
            while (await house.ask(BLOB)).status != 307:
                await trio.sleep(0.05)
        house.write("one.test", more=more)
        await house.reload()
        assert (await house.ask(BLOB)).status == 200


async def test_a_bucket_that_nobody_can_be_redirected_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seaweed_server: Seaweed
) -> None:
    def useless(bucket: Bucket, *, presigned: bool) -> None:
        if presigned:
            raise StoreUnreachable("no presigned addresses")

    more = bucket(seaweed_server, tmp_path)
    async with running(tmp_path, monkeypatch, more) as house:
        assert (await house.ask(BLOB)).body == LAYER
        monkeypatch.setattr(probe, "prove", useless)
        house.write("one.test", more=more + REDIRECT)
        with structlog.testing.capture_logs() as told:
            await house.reload()
        problems = [line["problem"] for line in told if line["event"] == "configuration refused"]
        assert problems == ["storage.objects.redirect: no presigned addresses"]
        assert (await house.ask(BLOB)).status == 200


def test_a_real_signal_and_what_the_service_manager_is_told(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    good = '[server]\nlisten = ["127.0.0.1:0"]\nmetrics = "127.0.0.1:0"\n[storage]\nstate = "state"\n'
    file.write_text(good)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        process = subprocess.Popen(
            [sys.executable, "-m", "cacheproxy", "serve", "--config", file],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        try:
            ready = manager.recv(4096).decode()
            assert ready.startswith("READY=1\nSTATUS=serving on 127.0.0.1:")
            for text, status in ((good, ""), ("nonsense", "; the configuration was refused")):
                file.write_text(text)
                process.send_signal(signal.SIGHUP)
                assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(4096).decode().startswith(ready + status)
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=30)
    assert b'"event":"configuration reloaded"' in errors
    assert b'"event":"the configuration from before stays"' in errors
    assert process.returncode == 0
