"""Eight clients that pull, come back for the rest, and now and then purge and pin, until the daemon dies."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable

import trio

from tests.crash.daemons import Daemon
from tests.crash.ledger import Ledger
from tests.crash.world import MIB, PINNED, TAGS, World, manifests
from tests.faults.client import Heard, asking

CLIENTS = 8
LOOK_EVERY = 0.05
"""Seconds between two looks at the rows."""


class Load:
    """`over` is set just before the crash: what is heard from then on was not told."""

    def __init__(self, world: World, ledger: Ledger, daemon: Daemon, rng: random.Random) -> None:
        self.over = trio.Event()
        self._world = world
        self._ledger = ledger
        self._daemon = daemon
        self._rng = rng

    async def run(self, see: Callable[[], None] | None) -> None:
        """Until `over`, and cancelled. `see` looks at the rows now and then."""
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._forever, self._some)
            nursery.start_soon(self._forever, self._move)
            if see is not None:
                nursery.start_soon(self._look, see)

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        while not self.over.is_set():
            try:
                await step()
            except (OSError, trio.BrokenResourceError) as error:
                if not self.over.is_set():
                    self._ledger.wrong.append(f"a daemon that runs does not answer: {error!r}")
                await trio.sleep(0.01)

    async def _look(self, see: Callable[[], None]) -> None:
        while not self.over.is_set():
            see()
            await trio.sleep(LOOK_EVERY)

    async def _move(self) -> None:
        await trio.sleep(self._rng.uniform(0.05, 0.4))
        self._world.move(self._rng.choice(self._world.repositories), self._rng.choice(TAGS))

    async def _some(self) -> None:
        kind = self._rng.random()
        repository = self._rng.choice([PINNED, *self._world.repositories])
        if kind < 0.02 and repository != PINNED:
            await self._purge(repository)
        elif kind < 0.05 and repository != PINNED:
            await self._daemon.command(self._rng.choice(["/pin", "/unpin"]), reference=f"{repository}:latest")
        else:
            await self._pull(repository, self._rng.choice(TAGS))

    async def _purge(self, repository: str) -> None:
        # What is pinned is refused: unpinned first.
        await self._daemon.command("/unpin", reference=f"{repository}:latest")
        purge = self._ledger.purge_begins(repository)
        status, _ = await self._daemon.command("/purge", reference=repository)
        if not self.over.is_set():
            if status == 409:
                purge.alone = False
            self._ledger.purge_ends(purge)

    async def _pull(self, repository: str, tag: str) -> None:
        began = self._ledger.begins(repository)
        try:
            moves = len(self._world.history[repository, tag])
            heard = await self._daemon.ask(manifests(repository) + tag)
            if not self._whole(heard, heard.headers.get("docker-content-digest", ""), f"{repository}:{tag}"):
                return
            digest = heard.headers["docker-content-digest"]
            if digest not in self._world.history[repository, tag][max(0, moves - 2) :]:
                self._ledger.wrong.append(f"{repository}:{tag} is told as {digest}, long after it moved")
            self._ledger.tell_tag(repository, tag, digest, began)
            self._ledger.tell_image(repository, digest, began)
            image = self._world.images[repository, digest]
            for blob in image.blobs:
                await (self._in_parts if self._rng.random() < 0.3 else self._at_once)(image.blob(blob), blob)
        finally:
            if not self.over.is_set():
                self._ledger.ends(repository)

    async def _at_once(self, path: str, digest: str) -> None:
        if self._whole(await self._daemon.ask(path), digest, path):
            self._ledger.tell_blob()

    async def _in_parts(self, path: str, digest: str) -> None:
        """Hang up in the middle, and come back for the rest; or a piece from somewhere."""
        right = self._world.blobs[digest]
        cut = self._rng.randrange(len(right) + 1)
        async with asking(self._daemon.clients, path) as request:
            head = await request.head()
            start = await request.take(cut)
        if self.over.is_set() or head.status == 0 or cut in (0, len(right)) or len(start) < cut:
            return
        stop = self._rng.choice([len(right), min(len(right), cut + MIB)])
        span = f"bytes={cut}-" if stop == len(right) else f"bytes={cut}-{stop - 1}"
        heard = await self._daemon.ask(path, Range=span)
        if self.over.is_set() or not heard.whole:
            return
        if (heard.status, start, heard.body) != (206, right[:cut], right[cut:stop]):
            self._ledger.wrong.append(f"{path} {span}: {heard.status}, or wrong bytes")

    def _whole(self, heard: Heard, digest: str, what: str) -> bool:
        """Whether it counts as told; a client proves what it got."""
        if self.over.is_set():
            return False
        if heard.status != 200 or not heard.whole:
            self._ledger.wrong.append(
                f"{what}: {heard.status}, {len(heard.body)} bytes: {heard.body[:300]!r}"
            )
            return False
        if "sha256:" + hashlib.sha256(heard.body).hexdigest() != digest:
            self._ledger.wrong.append(f"{what}: {len(heard.body)} bytes that are not {digest}")
        return True
