"""Daemons over one PostgreSQL and one folder or bucket, and what they do while the database is away."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import trio

from cacheproxy import config
from cacheproxy.app import main
from cacheproxy.store import postgres_changes
from tests.faults.client import Address, Heard, ask, asking
from tests.faults.house import House, hosts
from tests.faults.test_object_store import storage
from tests.postgres import postgres_url as postgres_url
from tests.postgres import server

ALWAYS_ASKS, BELIEVES = "0s", "1h"
"""How long a node believes a tag."""


class Node:
    def __init__(self, clients: Address, operators: Address) -> None:
        self.clients = clients
        self._operators = operators

    async def ask(self, path: str, **headers: str) -> Heard:
        return await ask(self.clients, path, headers=headers)

    async def ready(self) -> Heard:
        return await ask(self._operators, "/readyz")

    async def quiet(self) -> None:
        """Until what was served is stored as well."""

        async def idle() -> bool:
            return b"\ncacheproxy_fills_running 0.0\n" in (await ask(self._operators, "/metrics")).body

        await until(idle)


@asynccontextmanager
async def node(house: House, name: str, fresh: str) -> AsyncIterator[Node]:
    """A daemon with a state of its own; all else it shares with the others of the house."""
    file = house.file.with_name(f"{name}.toml")
    text = house.file.read_text().replace(str(house.state), str(house.state.with_name(name)))
    file.write_text(text.replace('for = "0s"', f'for = "{fresh}"'))
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(main, config.load(file, {}), drain)
        clients, operators = (_address(bound[door][0]) for door in ("listen", "metrics"))
        yield Node(clients, operators)
        drain.set()


def _address(bound: str) -> Address:
    host, _, port = bound.rpartition(":")
    return host, int(port)


@pytest.fixture
def blobs(request: pytest.FixtureRequest, folder: Path) -> str:
    """Where the nodes have them, in the configuration's words: in one folder, or in one bucket."""
    if getattr(request, "param", "folder") == "folder":
        return f'blobs = "{folder}/blobs"\n'
    return storage(request.getfixturevalue("seaweed_server"), folder, folder.name)


@pytest.fixture
async def house(
    folder: Path, blobs: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    monkeypatch.setattr(postgres_changes, "AGAIN_SECONDS", 0.05)
    async with hosts(folder, storage=f'database = "{postgres_url}"\n{blobs}') as house:
        yield house


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(30):
        while not await holds():
            await trio.sleep(0.01)


@pytest.mark.parametrize("blobs", ["folder", "bucket"], indirect=True)
async def test_what_one_node_fetched_another_one_serves(house: House) -> None:
    image = house.image("library/one", b"layer" * 1000)
    async with node(house, "a", BELIEVES) as a, node(house, "b", BELIEVES) as b:
        for path in (image.manifest_path(), *map(image.blob_path, image.blobs)):
            assert (await a.ask(path)).whole
        await a.quiet()
        asked = house.asked()
        assert (await b.ask(image.manifest_path())).body == image.manifest
        for digest, data in image.blobs.items():
            assert (await b.ask(image.blob_path(digest))).body == data
        assert house.asked() == asked


async def test_nodes_that_fetch_the_same_at_once_both_serve_it_and_store_it_once(
    house: House, folder: Path
) -> None:
    data = bytes(range(256)) * (1 << 13)
    image = house.image("library/one", data)
    (layer,) = image.layers
    async with node(house, "a", BELIEVES) as a, node(house, "b", BELIEVES) as b:
        house.registry.origin.rate = 8 << 20
        answers = []

        async def pull(node: Node) -> None:
            assert (await node.ask(image.manifest_path())).whole
            answers.append(await node.ask(image.blob_path(layer)))

        async with trio.open_nursery() as nursery:
            for each in (a, b, a, b):
                nursery.start_soon(pull, each)
        assert [answer.body == data for answer in answers] == [True] * 4
        await a.quiet()
        asked = house.asked()
        assert (await a.ask(image.blob_path(layer))).body == data
        assert (await b.ask(image.blob_path(layer))).body == data
        assert house.asked() == asked
    assert len(list((folder / "blobs" / "blobs").rglob("*.*"))) == 1


async def test_where_a_node_was_killed_in_mid_fill_another_one_goes_on(
    folder: Path, postgres_url: str
) -> None:
    data = random.Random(9).randbytes(24 << 20)
    storage = f'database = "{postgres_url}"\nblobs = "{folder}/blobs"'
    async with hosts(folder, storage=storage, name="127.0.0.1") as h, node(h, "b", BELIEVES) as b:
        image, origin = h.image("library/one", data), h.registry.origin
        (layer,) = image.layers
        async with h.process() as process:
            assert (await h.ask(image.manifest_path())).whole
            origin.rate = len(data)
            async with h.asking(image.blob_path(layer)):
                with trio.fail_after(20):
                    while origin.bytes_sent(layer) < len(data) * 2 // 3:
                        await trio.sleep(0.01)
                process.kill()
                await process.wait()
        sent, origin.rate = origin.bytes_sent(layer), None
        assert (await b.ask(image.manifest_path())).body == image.manifest
        assert (await b.ask(image.blob_path(layer))).body == data
        assert 0 < origin.bytes_sent(layer) - sent < len(data)


async def test_tag_that_one_node_saw_move_has_moved_for_another_one_that_had_it_in_memory(
    house: House,
) -> None:
    former = house.image("library/one", b"former")
    async with node(house, "a", ALWAYS_ASKS) as a, node(house, "b", BELIEVES) as b:
        for _ in range(3):
            assert (await b.ask(former.manifest_path())).body == former.manifest
        latter = house.image("library/one", b"latter")
        asked = house.asked()
        assert (await b.ask(former.manifest_path())).body == former.manifest
        assert house.asked() == asked
        assert (await a.ask(former.manifest_path())).body == latter.manifest
        asked = house.asked()

        async def moved() -> bool:
            return (await b.ask(former.manifest_path())).body == latter.manifest

        await until(moved)
        assert house.asked() == asked


async def test_node_that_cannot_hear_the_others_reads_rows(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = house.image("library/one", b"former")

    def deaf(*_: object) -> None:
        raise psycopg.OperationalError("no LISTEN here")

    async with node(house, "a", ALWAYS_ASKS) as a:
        monkeypatch.setattr(postgres_changes, "_listen", deaf)
        monkeypatch.setattr(postgres_changes, "AGAIN_SECONDS", 60)
        async with node(house, "b", BELIEVES) as b:
            for _ in range(3):
                assert (await b.ask(former.manifest_path())).body == former.manifest
            latter = house.image("library/one", b"latter")
            assert (await a.ask(former.manifest_path())).body == latter.manifest
            assert (await b.ask(former.manifest_path())).body == latter.manifest


async def test_database_that_is_away_is_told_and_used_again_when_it_is_back(house: House) -> None:
    image = house.image("library/one", bytes(8 << 20))
    (layer,) = image.layers
    paths = [image.manifest_path(), image.manifest_path(image.digest), image.blob_path(layer)]
    async with node(house, "a", BELIEVES) as a:
        for path in paths:
            assert (await a.ask(path)).whole
        await a.quiet()
        async with asking(a.clients, paths[2], headers={}, buffer=1 << 16) as download:
            assert (await download.head()).status == 200
            server().stop()
            try:
                assert (await a.ready()).status == 503
                assert b"database: StoreBusy" in (await a.ready()).body
                for path in paths:
                    heard = await a.ask(path)
                    assert (heard.status, heard.error["code"]) == (503, "UNAVAILABLE"), path
                    assert heard.headers["retry-after"] == "5"
                # What is on its way needs no row.
                assert len(await download.take(8 << 20)) == 8 << 20
            finally:
                server().start()
        for path in paths:
            assert (await a.ask(path)).whole
        assert (await a.ready()).status == 200
