"""Stored bytes that turn out not to be there, or not to be had: the reader goes on another way.

A store on this node knows at once what it has; one beyond a network says so when bytes are asked for, or in
the middle. What a digest names is the same wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import BlobMissing, StoreUnreachable

StoreFailure = BlobMissing | StoreUnreachable


class Standby:
    """A BlobView of `stored`, and of what `otherwise` gives from where that fails."""

    def __init__(self, stored: BlobView, otherwise: Callable[[StoreFailure], Awaitable[BlobView]]) -> None:
        self._view = stored
        self._otherwise = otherwise

    @property
    def digest(self) -> Digest:
        return self._view.digest

    @property
    def size(self) -> int:
        return self._view.size

    async def available(self, offset: int, span: Span) -> int:
        """Raises what the other way does."""
        try:
            return await self._view.available(offset, span)
        except (BlobMissing, StoreUnreachable) as error:
            other = await self._otherwise(error)
            self._view.close()
            self._view = other
        return await other.available(offset, span)

    def fileno(self) -> int | None:
        return self._view.fileno()

    async def read(self, offset: int, count: int) -> bytes:
        return await self._view.read(offset, count)

    def close(self) -> None:
        self._view.close()
