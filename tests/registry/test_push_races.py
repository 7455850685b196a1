"""The end of an upload, and what may end its session meanwhile, in each order, stopped before each call.

R14 of the races that a store of pushed images has to stand (tests/store/test_races_contract.py): a session
that nobody came back to for a day is just being ended, or its owner cancels it, when the last PUT comes.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.registry.push import SESSION_KEPT, Push
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from tests.postgres import postgres_url as postgres_url
from tests.store.conftest import content as content
from tests.store.conftest import database as database
from tests.store.conftest import opened as opened
from tests.store.conftest import opened_content as opened_content
from tests.store.hosting import host

TEAM, ALICE = "team/app", "user:alice"
pytestmark = pytest.mark.parametrize("opened_content", ["disk", "seaweedfs"], indirect=True)

CALLS = 30
"""More than an upload's end has."""


class Stop:
    """Stops whoever makes the call number `at`, until told to go on."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._go = trio.Event()
        self.reached = trio.Event()

    async def call(self) -> None:
        self._left -= 1
        if self._left == -1:
            self.reached.set()
            await self._go.wait()

    def go(self) -> None:
        self._go.set()


class Stopping:
    """Anything, with each call of its methods counted, in the loop or in its threads."""

    def __init__(self, real: Any, stop: Stop) -> None:
        self._real = real
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if inspect.iscoroutinefunction(real):
            return self._asynchronous(real)
        return self._blocking(real) if inspect.isroutine(real) else real

    def _asynchronous(self, real: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def called(*arguments: Any, **options: Any) -> Any:
            await self._stop.call()
            return await real(*arguments, **options)

        return called

    def _blocking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            trio.from_thread.run(self._stop.call)
            return real(*arguments, **options)

        return called


class Desk:
    """One upload, received whole; whoever pushes may be stopped."""

    def __init__(self, database: Database, content: Content, number: int) -> None:
        self.now = 1e9
        self.database, self.content = database, content
        self.files = content.uploads
        self.data = f"layer {number}".encode() * 1000
        self.digest = Digest.of(self.data)
        self.session = ""

    def push(self, stop: Stop | None = None) -> Push:
        def part(real: Any) -> Any:
            return real if stop is None else Stopping(real, stop)

        rows, files, content = part(Pushing(self.database)), part(self.files), part(self.content)
        return Push(rows, files, content, lambda: self.now)

    async def begin(self) -> None:
        push, rest = self.push(), [self.data]

        async def receive() -> bytes:
            return rest.pop() if rest else b""

        self.session = await push.begin(TEAM, ALICE, "sha256")
        await push.append(self.session, TEAM, ALICE, receive)

    async def finish(self, push: Push) -> bool:
        async def nothing() -> bytes:
            return b""

        try:
            size = await push.finish(self.session, TEAM, ALICE, self.digest, nothing)
        except OCIError as error:
            if error.code not in ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"):
                raise
            return False
        assert size == len(self.data)
        return True

    async def cancel(self, push: Push) -> None:
        try:
            await push.cancel(self.session, TEAM, ALICE)
        except OCIError as error:
            if error.code != "BLOB_UPLOAD_UNKNOWN":
                raise

    async def expire(self, push: Push) -> None:
        """As if a day had passed: one look at all sessions."""
        path = self.content.root / "uploads" / self.session
        if path.exists():
            os.utime(path, (self.now, self.now))
        before, self.now = self.now, self.now + SESSION_KEPT + 1
        await push._expire()
        self.now = before

    async def bytes_stored(self) -> bytes | None:
        row = await Records(self.database).blob(TEAM, self.digest)
        if row is None or not row.generation:
            return None
        found = await trio.to_thread.run_sync(
            self.content.read_cold, row.location, len(self.data), 0, len(self.data)
        )
        return bytes(found)


Step = Callable[[Push], Awaitable[Any]]


async def together(desk: Desk, first: Step, second: Step, at: int) -> tuple[Any, bool]:
    """What the first one said, which waits before its call number `at`; whether it had so many."""
    stop, said = Stop(at), list[Any]()

    async def run() -> None:
        said.append(await first(desk.push(stop)))
        stop.reached.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await stop.reached.wait()
            met = not said
            answer = await second(desk.push())
            stop.go()
    return (said[0] if said[0] is not None else answer), met


@pytest.mark.parametrize("other", ["expire", "cancel"])
@pytest.mark.parametrize("stops", ["finish", "other"])
async def test_an_upload_ends_as_a_blob_or_as_nothing(
    database: Database, content: Content, other: str, stops: str
) -> None:
    await host(database, TEAM)
    for at in range(CALLS):
        desk = Desk(database, content, at)
        await desk.begin()
        finish, end = desk.finish, getattr(desk, other)
        first, second = (finish, end) if stops == "finish" else (end, finish)
        told, met = await together(desk, first, second, at)
        assert await desk.bytes_stored() == (desk.data if told else None), f"stopped before call {at}"
        await desk.expire(desk.push())
        assert list((content.root / "uploads").iterdir()) == []
        if not met:
            return
    raise AssertionError("it never ended")
