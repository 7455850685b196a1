"""Who works with hosted repositories at once: pushers, pullers, and those who delete."""

from __future__ import annotations

import random
from dataclasses import dataclass

import trio

from tests.crash.pushed import INDEX, REPOSITORIES, Item, Shelf, State, Tag
from tests.crash.quick import GRACE
from tests.crash.visits import Lost, Visitor
from tests.crash.world import KIB
from tests.faults.client import Heard

MARGIN = 0.1
"""Seconds: less than was promised, for what came between the promise and its answer."""

SMALL, CHUNK = KIB, 256 * KIB
"""Bytes: below the one an upload is not sent in chunks, which have the other at most."""

PASSING = "team/passing"
KEEP = 30
"""Images that are there, and from which on more is deleted than pushed."""


@dataclass
class Actor:
    visitor: Visitor
    shelf: Shelf
    rng: random.Random

    async def work(self, over: trio.Event) -> None:
        while not over.is_set():
            try:
                await self.step()
            except Lost:
                self.shelf.count("lost")
            await trio.sleep(self.rng.uniform(0, 0.03))

    async def step(self) -> None:
        raise NotImplementedError

    def wrong(self, what: str) -> None:
        self.shelf.wrong.append(what)


@dataclass
class Puller(Actor):
    """Sees what nobody is working on: there if it was told, or gone, and tags as they may be."""

    async def step(self) -> None:
        kind = self.rng.random()
        if kind < 0.2 and self.shelf.tags:
            await self._tag(self.rng.choice(self.shelf.tags))
        elif kind < 0.3:
            await self._gone()
        elif told := self.shelf.free(State.TOLD):
            await self._told(self.rng.choice(told))

    async def _told(self, item: Item) -> None:
        version = item.version
        wrong = await self.visitor.see(item)
        if item.version == version:
            self.shelf.count("images pulled")
            if wrong:
                self.wrong(f"told, and not whole: {wrong}")

    async def _gone(self) -> None:
        gone = self.shelf.free(State.GONE)
        if not gone:
            return
        item = self.rng.choice(gone)
        version = item.version
        heard = await self.visitor.ask(item.path)
        if heard.status != 404 and item.version == version:
            self.wrong(f"deleted, and there: {item} {heard.status}")

    async def _tag(self, tag: Tag) -> None:
        version = tag.version
        meaning = await self.visitor.meaning(tag.path)
        if tag.version == version and meaning not in tag.meanings:
            self.wrong(f"{tag.path} means {meaning}, and not one of {tag.meanings}")


@dataclass
class Cleaner(Actor):
    async def step(self) -> None:
        there = self.shelf.free(State.TOLD, State.UNKNOWN)
        if len(there) < self.rng.uniform(0, KEEP):
            return
        if free := [item for item in there if not self.shelf.held(item)]:
            await self.delete(self.rng.choice(free))

    async def delete(self, item: Item) -> None:
        before, tags = item.state, self.shelf.tags_of(item)
        with self.shelf.taking(item):
            item.state = State.UNKNOWN
            self.shelf.loosen(self.shelf.orphaned_by(item))
            for tag in tags:
                tag.meanings.add(None)
                tag.version += 1
            try:
                heard = await self.visitor.ask(item.path, "DELETE")
            finally:
                self.shelf.loosen(self.shelf.orphaned_by(item))
            if heard.status == 202 or (heard.status == 404 and before is State.UNKNOWN):
                item.state = State.GONE
                self.shelf.count("images deleted")
                for tag in self.shelf.tags_of(item):
                    tag.meanings.discard(item.digest)
                    tag.meanings = tag.meanings or {None}
                    tag.version += 1
            else:
                self.wrong(f"{item} was {before.value}, and its DELETE: {heard.status} {heard.body[:200]!r}")


@dataclass
class Pusher(Actor):
    tags: list[Tag]

    async def step(self) -> None:
        if (item := self._chosen()) is not None:
            await self.push(item)

    async def push(self, item: Item) -> None:
        """With all that it consists of. Raises Lost."""
        named = [each for each in (*item.children, item.subject) if each is not None]
        with self.shelf.taking(item, *named):
            version = item.version
            promised = trio.current_time() + GRACE
            for digest in item.blobs:
                promised = min(promised, await self._bring(item.repository, digest))
            await self._think(promised - MARGIN)
            await self._put(item, promised - MARGIN)
            if item.version != version and item.state is State.TOLD:
                item.state = State.UNKNOWN  # its index or its subject went meanwhile

    def _chosen(self) -> Item | None:
        repository, kind = self.rng.choice(REPOSITORIES), self.rng.random()
        if kind < 0.35 and (again := self.shelf.free(State.GONE, State.UNKNOWN, repository=repository)):
            return self._possible(self.rng.choice(again))
        told = self.shelf.free(State.TOLD, repository=repository)
        images = [item for item in told if item.media_type != INDEX]
        if kind < 0.55 and len(images) >= 2:
            return self.shelf.index(repository, tuple(self.rng.sample(images, 2)))
        if kind < 0.75 and told:
            return self.shelf.image(repository, self.rng.choice(told))
        return self.shelf.image(repository)

    def _possible(self, item: Item) -> Item | None:
        """Not while others work on what it names, or have taken that out."""
        named = [each for each in (*item.children, item.subject) if each is not None]
        there = all(not each.taken and each.state is State.TOLD for each in named)
        return item if there and not self.shelf.loose(item) else None

    # Blobs.

    async def _bring(self, repository: str, digest: str) -> float:
        """Until when the repository is sure to have the blob."""
        began, blob = trio.current_time(), f"/v2/{repository}/blobs/{digest}"
        if self.rng.random() < 0.7 and (await self.visitor.ask(blob, "HEAD")).status == 200:
            self.shelf.count("blobs found")
            return began + GRACE / 2
        uploads = f"/v2/{repository}/blobs/uploads/"
        if self.rng.random() < 0.4:
            source = self.rng.choice((*REPOSITORIES, PASSING))
            heard = await self.visitor.ask(f"{uploads}?mount={digest}&from={source}", "POST", b"")
            if heard.status == 201:
                self.shelf.count("blobs mounted")
                return began + GRACE
            await self._ended(heard)
        began = trio.current_time()
        data = self.shelf.blobs[digest]
        ways = [self._at_once, self._whole, *[self._in_chunks] * 2]
        way = self.rng.choice(ways if len(data) >= SMALL else ways[:2])
        heard = await way(uploads, digest, data)
        if heard.status != 201:
            self.wrong(
                f"{way.__name__} of {digest[:19]} into {repository}: {heard.status} {heard.body[:200]!r}"
            )
            raise Lost
        self.shelf.count("blobs uploaded")
        return began + GRACE

    async def _ended(self, begun: Heard) -> None:
        """An upload that was begun instead of a mount is cancelled."""
        heard = await self.visitor.ask(begun.headers["location"], "DELETE")
        if heard.status != 204:
            self.wrong(f"an upload is not cancelled: {heard.status} {heard.body[:200]!r}")

    async def _at_once(self, uploads: str, digest: str, data: bytes) -> Heard:
        return await self.visitor.ask(f"{uploads}?digest={digest}", "POST", data)

    async def _whole(self, uploads: str, digest: str, data: bytes) -> Heard:
        begun = await self.visitor.ask(uploads, "POST", b"")
        return await self.visitor.ask(_closing(begun.headers["location"], digest), "PUT", data)

    async def _in_chunks(self, uploads: str, digest: str, data: bytes) -> Heard:
        """A daemon that was killed is asked how far it is, and goes on from there."""
        begun = await self.visitor.ask(uploads, "POST", b"")
        place, at = begun.headers["location"], 0
        while at < len(data):
            chunk = data[at : at + self.rng.randint(SMALL, CHUNK)]
            span = f"{at}-{at + len(chunk) - 1}"
            try:
                heard = await self.visitor.ask(place, "PATCH", chunk, **{"Content-Range": span})
            except Lost:
                heard = await self.visitor.ask(place)
                self.shelf.count("uploads gone on with")
            received = _received(heard)
            if heard.status not in (202, 204) or not at <= received <= at + len(chunk):
                self.wrong(f"an upload of {at} and {len(chunk)} bytes more: {heard.status} {heard.headers}")
                raise Lost
            at, place = received, heard.headers.get("location", place)
        return await self.visitor.ask(_closing(place, digest), "PUT", b"")

    # The manifest.

    async def _think(self, promised: float) -> None:
        """Now and then, as long as a build may: what was promised is needed at the last moment."""
        if self.rng.random() < 0.3:
            left = max(0.0, promised - trio.current_time())
            await trio.sleep(left * self.rng.uniform(0.5, 0.9))

    async def _put(self, item: Item, promised: float) -> None:
        mine = [each for each in self.tags if each.repository == item.repository]
        tag = self.rng.choice([*mine, None])
        if tag is not None:
            tag.meanings.add(item.digest)
            tag.version += 1
        before = item.state
        if before is State.GONE:
            item.state = State.UNKNOWN
        path = item.path if tag is None else tag.path
        heard = await self.visitor.ask(path, "PUT", item.body, **{"Content-Type": item.media_type})
        if heard.status == 201:
            item.state = State.TOLD
            self.shelf.count("images pushed")
            if tag is not None:
                tag.meanings = {item.digest}
                tag.version += 1
        elif trio.current_time() < promised or b"MANIFEST_BLOB_UNKNOWN" not in heard.body:
            self.wrong(f"{item} is refused, and all was promised: {heard.status} {heard.body[:300]!r}")
        else:
            self.shelf.count("images pushed too late")


@dataclass
class Passer(Pusher):
    """Makes a repository, from which others mount, and deletes it with all that is in it."""

    async def step(self) -> None:
        item = self.shelf.image(PASSING)
        with self.shelf.taking(item):
            try:
                await self._pass(item)
            except Lost:
                item.state = State.UNKNOWN  # it goes with the next one
                raise

    async def _pass(self, item: Item) -> None:
        promised = trio.current_time() + GRACE
        for digest in item.blobs:
            promised = min(promised, await self._bring(PASSING, digest))
        await self._put(item, promised - MARGIN)
        if item.state is State.TOLD and (wrong := await self.visitor.see(item)):
            self.wrong(f"told, and not whole: {wrong}")
        await trio.sleep(self.rng.uniform(0, 1))
        status = await self.visitor.command("/repositories/delete", name=PASSING, force=True)
        if status not in (200, 404):
            self.wrong(f"{PASSING} is not deleted: {status}")
        item.state = State.GONE
        self.shelf.count("repositories deleted")
        if (status := (await self.visitor.ask(item.path)).status) != 404:
            self.wrong(f"{PASSING} was deleted, and {item.path} is {status}")


def _closing(place: str, digest: str) -> str:
    return f"{place}{'&' if '?' in place else '?'}digest={digest}"


def _received(heard: Heard) -> int:
    """Bytes, by the Range header: its end is the last one's number. (0-0 may be one as well as none.)"""
    last = int(heard.headers.get("range", "0-0").rpartition("-")[2])
    return last + 1 if last else 0
