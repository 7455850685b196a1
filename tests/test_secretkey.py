"""Whole daemons and the key of their rows: made once, shared by nodes, refused when it is another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from cacheproxy import config
from cacheproxy.app import main
from cacheproxy.groups import leaves
from cacheproxy.secretkey import NAME
from tests.commands.desk import Desk
from tests.faults.client import Address
from tests.faults.house import House, hosts
from tests.postgres import postgres_url as postgres_url
from tests.test_accounts import UPLOADS, bearer, hosting, token
from tests.test_hosting import Client, basic


async def refused(house: House, file: Path | None = None) -> str:
    """Why a daemon does not start."""
    failures: list[BaseException] = []
    try:
        with trio.fail_after(20):
            await main(config.load(file or house.file), trio.Event())
    except* Exception as group:  # noqa: BLE001 - it is looked at
        failures.extend(leaves(group))
    return " ".join(map(str, failures))


async def test_the_key_is_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house:
        key = house.state / NAME
        async with house.daemon():
            text = key.read_text()
            told = await token(Client(house), basic("alice"))
            house.drain()
        async with house.daemon():
            assert (await Client(house).ask("POST", UPLOADS, b"layer", bearer(told))).status == 201
            house.drain()
        assert key.read_text() == text
        assert key.stat().st_mode & 0o777 == 0o600


async def test_without_accounts_there_is_none(tmp_path: Path) -> None:
    async with hosts(tmp_path) as house, house.daemon():
        assert not (house.state / NAME).exists()
        house.drain()


async def test_another_key_is_refused_until_what_it_does_not_open_is_given_up(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house:
        async with house.daemon():
            await Desk(house).says("account", "access-key", "add", "alice")
            house.drain()
        (house.state / NAME).write_text("0" * 64)
        said = await refused(house)
        assert "put back the" in said
        assert "account reset-keys" in said
        assert "2 sealed secrets given up" in await Desk(house).says("account", "reset-keys")
        async with house.daemon():
            assert (await token(Client(house), basic("alice")))["token"]
            house.drain()


async def test_keys_are_not_given_up_while_a_daemon_runs(tmp_path: Path) -> None:
    async with hosting(tmp_path) as house, house.daemon():
        assert "another process runs" in await Desk(house).refuses("account", "reset-keys")
        house.drain()


@pytest.mark.parametrize(
    ("text", "mode", "said"), [("x", 0o600, "64 hexadecimal digits"), ("0" * 64, 0o644, "chmod 600")]
)
async def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    async with hosting(tmp_path) as house:
        house.state.mkdir()
        (house.state / NAME).write_text(text)
        (house.state / NAME).chmod(mode)
        assert said in await refused(house)


async def test_nodes_over_one_database_need_one_key(tmp_path: Path, postgres_url: str) -> None:
    async with hosting(tmp_path, postgres_url) as house:
        own, shared = (
            nodes(house, "a", "b"),
            f'[storage]\nkey = {{ file = "{house.state.with_name("a") / NAME}" }}',
        )
        async with node(own[0]):
            assert "all nodes over one PostgreSQL need one key" in await refused(house, own[1])
            own[1].write_text(own[1].read_text().replace("[storage]", shared))
            async with node(own[1]):
                pass


async def test_what_is_revoked_at_one_node_ends_at_the_others(tmp_path: Path, postgres_url: str) -> None:
    async with hosting(tmp_path, postgres_url) as house:
        (house.file.with_name("shared.key")).write_text("ab" * 32)
        house.file.write_text(
            house.file.read_text().replace("[storage]", '[storage]\nkey = { file = "shared.key" }')
        )
        here, there = nodes(house, "a", "b")
        async with node(here), node(there) as address:
            desk = Desk(cast("House", SimpleNamespace(file=here)))
            secret = (await desk.says("account", "add", "robot", "--group", "ci")).strip()
            headers = basic("robot", secret)

            client = Client(cast("House", SimpleNamespace(clients=address)))

            async def status() -> int:
                return (await client.ask("POST", UPLOADS, b"layer", headers)).status

            await until(status, 201)
            await desk.says("grant", "add", "user:robot", "--deny", "push", "-r", "team/**")
            await until(status, 403)
            await desk.says("grant", "remove", "1")
            await until(status, 201)
            await desk.says("account", "revoke", "robot")
            await until(status, 401)


async def until(status: Callable[[], Awaitable[int]], expected: int) -> None:
    """Sooner than what is remembered is forgotten by itself, which takes a minute."""
    with trio.fail_after(30):
        while await status() != expected:
            await trio.sleep(0.05)


def nodes(house: House, *names: str) -> list[Path]:
    """Configurations that differ in the state folder."""
    files = [house.file.with_name(f"{name}.toml") for name in names]
    for name, file in zip(names, files, strict=True):
        file.write_text(house.file.read_text().replace(str(house.state), str(house.state.with_name(name))))
    return files


@asynccontextmanager
async def node(file: Path) -> AsyncIterator[Address]:
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(main, config.load(file), drain)
        host, _, port = bound["listen"][0].rpartition(":")
        yield host, int(port)
        drain.set()
