"""A proxy's clients go away all day: no moment is wrong for it."""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
import trio
import trio.lowlevel

from cacheproxy.upstream.transport import OwnedTransport
from tests.upstream.authority import ca_file, server_context
from tests.upstream.servers import Asked, Server, chunked, client, descriptors, dialer, reply
from tests.upstream.test_proxy import tunnelling

WORKERS = 48
SIZES = (0, 1_000, 1_000, 600_000)


@dataclass
class Scene:
    """A server whose bodies say what was asked for, and a client of it."""

    server: Server
    session: httpx.AsyncClient

    async def whole(self, target: str) -> None:
        response = await self.session.get(f"{self.server.url}{target}")
        assert response.content == body_of(target)


def body_of(target: str) -> bytes:
    """For /name/size: the name, so often."""
    _, name, size = target.split("/")
    return (name.encode() * (int(size) // len(name) + 1))[: int(size)]


async def telling(asked: Asked) -> bytes:
    body = body_of(asked.target)
    await trio.lowlevel.checkpoint()
    return chunked(body) if body and len(body) % 3 else reply(body)


@asynccontextmanager
async def scene(kind: str, idle: int) -> AsyncIterator[Scene]:
    """Ends by proving that nothing was left behind: no connection, no descriptor."""
    gc.collect()  # what others left to the collector would be missed in the end
    before = descriptors()
    async with trio.open_nursery() as nursery:
        server = Server(telling, tls=server_context() if "tls" in kind else None)
        await nursery.start(partial(server.serve, accept_after=0.001 if "slow" in kind else 0.0))
        proxy = Server(tunnelling(server.port))
        await nursery.start(proxy.serve)
        via = f"http://127.0.0.1:{proxy.port}" if "proxy" in kind else None
        transport = OwnedTransport(dialer(ca=ca_file(), proxy=via), max_idle=idle)
        async with client(transport, timeout=20.0) as session:
            yield Scene(server, session)
            await server.left_with(idle)
        await server.left_with(0)
        await proxy.left_with(0)
        nursery.cancel_scope.cancel()
    assert descriptors() == before


class CancelAt(trio.abc.Instrument):
    """Cancels `scope` as its task is about to take its nth step: each n is another await to die in."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self.left = step
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at(step: int, there: Scene, target: str) -> bool:
    """Ask, and die at that step; False if it was over before."""
    cancel = CancelAt(step)
    trio.lowlevel.add_instrument(cancel)
    try:
        with cancel.scope:
            await there.whole(target)
    finally:
        trio.lowlevel.remove_instrument(cancel)
    return cancel.left <= 0


@pytest.mark.parametrize("idle", [0, 8], ids=["fresh", "reused"])
@pytest.mark.parametrize("kind", ["plain", "tls", "proxy tls"])
async def test_it_can_be_cancelled_at_each_await(kind: str, idle: int) -> None:
    async with scene(kind, idle) as there:
        for step in itertools.count(1):
            if not await cancelled_at(step, there, f"/step{step}/600000"):
                break
            await there.whole(f"/after{step}/10")
        assert step > 5


async def storm(there: Scene, requests: int, seed: int) -> int:
    """So many requests, most of them to be cancelled within a tenth of a second; how many were."""
    chance = random.Random(seed)
    numbers = iter(range(requests))
    cancelled = 0

    async def worker() -> None:
        nonlocal cancelled
        for number in numbers:
            target = f"/storm{number}/{chance.choice(SIZES)}"
            patience = 10 ** chance.uniform(-5, -1) if chance.random() < 0.7 else 20.0
            with trio.move_on_after(patience) as scope:
                await there.whole(target)
            cancelled += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(worker)
    return cancelled


@pytest.mark.parametrize(
    ("kind", "requests"), [("plain", 3000), ("tls", 2000), ("slow plain", 500), ("slow tls", 500)]
)
async def test_a_storm_of_cancelled_requests_leaves_nothing_behind(kind: str, requests: int) -> None:
    async with scene(kind, 8) as there:
        cancelled = await storm(there, requests, seed=requests)
        assert cancelled > requests / 10
        assert requests - cancelled > requests / 10
        for number in range(50):
            await there.whole(f"/after{number}/1000")
