"""One id of a request: in its line, in those about what it asked upstream, and in what the client is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.faults.client import Heard
from tests.faults.house import House, hosts
from tests.origin import faults

LOOPBACK = "127.0.0.1"
"""The names of the others' hosts mean nothing to a daemon of its own process."""


class Said(list[dict[str, Any]]):
    """The lines of a log."""

    def request(self, request: str) -> dict[str, Any]:
        [line] = [line for line in self if line["event"] == "request" and line["request"] == request]
        return line

    def upstream(self, request: str) -> list[dict[str, Any]]:
        events = ("upstream request", "upstream request failed")
        return [line for line in self if line["event"] in events and line.get("request") == request]


@asynccontextmanager
async def logged(folder: Path) -> AsyncIterator[tuple[House, Said]]:
    """The log is there after the block."""
    said = Said()
    async with hosts(folder, name=LOOPBACK) as h:
        h.file.write_text(h.file.read_text().replace("requests = false", "requests = true"))
        h.registry.origin.auth = "bearer"
        async with h.process() as daemon:
            yield h, said
            daemon.terminate()
            assert daemon.stderr is not None
            text = b"".join([part async for part in daemon.stderr])
            said += map(json.loads, text.splitlines())


async def test_a_pull_that_fails_has_one_id_everywhere(folder: Path) -> None:
    async with logged(folder) as (h, said):
        image = h.image("library/app", b"layer")
        h.registry.origin.fault({"kind": "manifest"}, faults.status(503), skip=1)
        heard = await h.ask(image.manifest_path())
    request = heard.error["detail"]["request"]
    assert said.request(request)["status"] == heard.status == 502
    lines = said.upstream(request)
    assert {line["status"] for line in lines[:2]} == {401, 200}  # the challenge, and the token
    assert {(line["status"], line["level"]) for line in lines[2:]} == {(503, "warning")}


async def test_so_has_one_whose_upstream_is_away(folder: Path) -> None:
    async with logged(folder) as (h, said):
        image = h.image("library/app", b"layer")
        await h.registry.stop()
        heard = await h.ask(image.manifest_path())
    request = heard.error["detail"]["request"]
    assert said.request(request)["status"] == heard.status == 503
    assert {line["cause"] for line in said.upstream(request)} == {"connect"}


async def test_so_has_a_blob_that_ends_in_the_middle(folder: Path) -> None:
    async with logged(folder) as (h, said):
        image = h.image("library/app", bytes(4 << 20))
        path = image.blob_path(image.layers[0])
        await h.ask(image.manifest_path())
        h.registry.origin.fault({"kind": "blob"}, faults.truncate(1 << 20), times=1)
        h.registry.origin.fault({"kind": "blob"}, faults.status(404))
        assert not (await h.ask(path)).whole
    [line] = [line for line in said if line["event"] == "request" and line["target"] == path]
    assert line["aborted"] == "source"
    assert [one["status"] for one in said.upstream(line["request"])] == [200, 404]


async def test_who_shared_a_failure_is_told_whose_it_was(folder: Path) -> None:
    heard = list[Heard]()
    async with logged(folder) as (h, said):
        image = h.image("library/app", b"layer")

        async def ask() -> None:
            heard.append(await h.ask(image.manifest_path()))

        h.registry.origin.fault({"kind": "manifest"}, faults.status(404), skip=1)
        slow = h.registry.origin.fault({"kind": "manifest"}, faults.delay(0.5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not slow.hits:
                await trio.sleep(0.01)
            nursery.start_soon(ask)
    requests = {one.error["detail"]["request"] for one in heard}
    assert len(requests) == 2
    [first] = [request for request in requests if said.upstream(request)]
    [second] = requests - {first}
    assert said.request(second)["shared"] == first
    assert "shared" not in said.request(first)


async def test_who_shared_a_download_too_and_only_for_that(folder: Path) -> None:
    async with logged(folder) as (h, said):
        image = h.image("library/app", bytes(4 << 20))
        path = image.blob_path(image.layers[0])
        await h.ask(image.manifest_path())
        h.registry.origin.fault({"kind": "blob"}, faults.delay(0.5))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(h.ask, path)
    lines = [line for line in said if line["event"] == "request" and line["target"] == path]
    ids = {line["outcome"]: line["request"] for line in lines}
    shared = {line["outcome"]: line.get("shared") for line in lines}
    assert shared == {"miss": None, "coalesced": ids["miss"]}
