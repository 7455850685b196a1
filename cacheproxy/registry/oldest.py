"""What may go to make room, the longest unread first, read from the rows a page at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from cacheproxy.core.digest import Digest
from cacheproxy.store.disk import Unfinished
from cacheproxy.store.rows import Evictable

PAGE = 512
"""Blobs a scan gives."""

Item = Evictable | Unfinished


class Rows(Protocol):
    async def evictable(self, n: int, after: Evictable | None = None) -> list[Evictable]: ...


class Oldest:
    """Blobs and unfinished downloads in one line; without the blobs that are `held`: they are being read."""

    def __init__(self, rows: Rows, held: Callable[[Digest], bool], parts: Iterable[Unfinished]) -> None:
        self._rows = rows
        self._held = held
        # An unfinished download is as old as its last byte.
        self._parts = deque(sorted(parts, key=lambda part: part.mtime))
        self._blobs = deque[Evictable]()
        self._last: Evictable | None = None
        self._ended = False
        self._bytes = sum(part.bytes for part in self._parts)

    async def has(self, wanted: int) -> int:
        """How many bytes can go: counted up to `wanted`, as that may take many pages. Raises StoreError."""
        while self._bytes < wanted and not self._ended:
            await self._page()
        return self._bytes

    async def take(self, wanted: int, most: int) -> list[Item]:
        """The front of the line: as many as have so many bytes, up to `most`. Raises StoreError."""
        batch, total = list[Item](), 0
        while total < wanted and len(batch) < most and (item := await self._next()) is not None:
            batch.append(item)
            total += _size(item)
        return batch

    async def _next(self) -> Item | None:
        while not self._blobs and not self._ended:
            await self._page()
        if self._parts and (not self._blobs or self._parts[0].mtime <= self._blobs[0].used):
            item: Item = self._parts.popleft()
        elif self._blobs:
            item = self._blobs.popleft()
        else:
            return None
        self._bytes -= _size(item)
        return item

    async def _page(self) -> None:
        page = await self._rows.evictable(PAGE, self._last)
        self._ended = not page
        self._last = page[-1] if page else self._last
        free = [blob for blob in page if not self._held(blob.digest)]
        self._blobs += free
        self._bytes += sum(blob.size for blob in free)


def _size(item: Item) -> int:
    return item.size if isinstance(item, Evictable) else item.bytes
