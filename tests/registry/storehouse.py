"""Rows of a real database over bytes that are only counted: what the tests of eviction stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cacheproxy.core.blob import Span
from cacheproxy.core.digest import Digest
from cacheproxy.registry.eviction import Eviction
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.space import Space
from cacheproxy.store.disk import Unfinished
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite

TOTAL = 1 << 40
"""Bytes of the file system."""


def digest(name: str | int) -> Digest:
    return Digest.of(str(name).encode())


@dataclass
class CountedBytes:
    files: dict[str, int] = field(default_factory=dict)
    """Sizes by location."""
    parts: dict[Digest, Unfinished] = field(default_factory=dict)
    running: set[Digest] = field(default_factory=set)
    others: int = 0
    """Bytes that others have on the file system."""
    failing: set[str] = field(default_factory=set)
    """Locations that cannot be unlinked."""
    removed: list[str] = field(default_factory=list)

    @property
    def used(self) -> int:
        return sum(self.files.values()) + sum(part.bytes for part in self.parts.values())

    def capacity(self) -> tuple[int, int]:
        return TOTAL - self.used - self.others, TOTAL

    def remove(self, location: str) -> bool:
        if location in self.failing:
            raise OSError(5, "the disk fails")
        self.removed.append(location)
        return self.files.pop(location, None) is not None

    def partials(self) -> list[Unfinished]:
        return list(self.parts.values())

    def reap(self, older_than: float, now: float) -> list[Digest]:
        gone = [
            part.digest
            for part in self.parts.values()
            if now - part.mtime > older_than and part.digest not in self.running
        ]
        for name in gone:
            del self.parts[name]
        return gone


@dataclass
class View:
    """A BlobView that nobody reads."""

    digest: Digest
    size: int = 1

    async def available(self, offset: int, span: Span) -> int:
        await trio.lowlevel.checkpoint()
        return span.stop - offset

    def fileno(self) -> None:
        return None

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(count)

    def close(self) -> None: ...


@dataclass
class Storehouse:
    records: Records
    content: CountedBytes
    space: Space
    recency: Recency
    eviction: Eviction
    now: float = 1_000_000.0
    generation: int = 0

    async def store(self, name: str | int, size: int, used: float | None = None, *upstreams: str) -> Digest:
        """Bytes of a blob, without asking whether there is room."""
        blob = digest(name)
        self.generation += 1
        location = f"blobs/{name}.{self.generation}"
        for upstream in upstreams:
            await self.records.record_link(f"{upstream}/x", upstream, blob, size, self.now)
        self.content.files[location] = size
        time = self.now if used is None else used
        await self.records.record_blob(blob, size, location, self.generation, time)
        self.space.store(blob, size)
        return blob

    async def fill(self, name: str | int, size: int) -> bool:
        """What a fill does, as far as room goes; False: it was to be served uncached."""
        if not await self.eviction.reserve(digest(name), size):
            return False
        await self.store(name, size)
        return True

    def leave(self, name: str | int, size: int, mtime: float) -> None:
        """An unfinished download that nobody is bringing."""
        blob = digest(name)
        self.content.parts[blob] = Unfinished(blob, size, mtime)
        self.space.keep_part(blob, size)

    async def here(self, *names: str | int) -> list[str | int]:
        """Those of the names whose bytes the rows have."""
        rows = [(name, await self.records.any_blob(digest(name))) for name in names]
        return [name for name, row in rows if row is not None and row.generation > 0]


@asynccontextmanager
async def storehouse(
    folder: Path,
    budget: int | None = None,
    min_free: int = 0,
    keep: dict[str, float] | None = None,
    *,
    shared: bool = False,
) -> AsyncIterator[Storehouse]:
    content = CountedBytes()
    async with SQLite.open(folder / "rows.db") as database:
        records = Records(database)
        space = Space(budget, lambda _: min_free, content.capacity, stored=0, partials=())

        def clock() -> float:
            return house.now

        recency = Recency(records.record_used, clock)
        eviction = Eviction(records, content, space, recency, keep or {}, clock, shared=shared)
        house = Storehouse(records, content, space, recency, eviction)
        yield house
