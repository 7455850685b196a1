"""Stored bytes that turn out not to be there, or not to be had: the reader goes on another way.

A store on this node knows at once what it has, but not whether it can be read; one beyond a network says both
when bytes are asked for, or in the middle. What a digest names is the same wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cacheproxy.core.blob import BlobBroken, BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.durable import UNREADABLE
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreUnreachable

StoreFailure = BlobMissing | StoreUnreachable


class Standby:
    """A BlobView of `stored`, and of what `otherwise` gives from where that fails."""

    def __init__(self, stored: BlobView, otherwise: Callable[[StoreFailure], Awaitable[BlobView]]) -> None:
        self._view = stored
        self._otherwise = otherwise
        self._stored = True
        """No other way was taken yet."""
        self._failure: StoreFailure | None = None
        """Of what is stored, told by whoever sent it."""

    @property
    def digest(self) -> Digest:
        return self._view.digest

    @property
    def size(self) -> int:
        return self._view.size

    async def available(self, offset: int, span: Span) -> int:
        """Raises what the other way does."""
        if self._failure is None:
            try:
                return await self._view.available(offset, span)
            except (BlobMissing, StoreUnreachable) as error:
                if not self._stored:
                    raise
                self._failure = error
        other = await self._otherwise(self._failure)
        self._view.close()
        self._view, self._stored, self._failure = other, False, None
        return await other.available(offset, span)

    def fileno(self) -> int | None:
        return self._view.fileno()

    def failed(self, error: Exception) -> bool:
        if not self._stored:
            return self._view.failed(error)
        self._failure = _meaning(error)
        return True

    async def read(self, offset: int, count: int) -> bytes | memoryview:
        return await self._view.read(offset, count)

    def close(self) -> None:
        self._view.close()


def _meaning(error: Exception) -> StoreFailure:
    """Of a descriptor that did not give its bytes."""
    if isinstance(error, BlobBroken):
        return BlobDamaged(str(error), "truncated")
    if isinstance(error, OSError) and error.errno in UNREADABLE:
        return BlobDamaged(f"the file cannot be read: {error.strerror}", "unreadable")
    return StoreUnreachable(str(error))  # it says nothing about the bytes
