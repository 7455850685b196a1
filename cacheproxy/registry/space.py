"""How much may be cached: the budget and the disk's reserve, asked before a byte is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cacheproxy.core.digest import Digest


class Space:
    """Counts cached bytes: stored blobs, partial files, and what running fills have reserved.

    `capacity` gives (free, total) bytes of the file system; `min_free(total)` the bytes that stay free of it.
    """

    def __init__(
        self,
        budget: int | None,
        min_free: Callable[[int], int],
        capacity: Callable[[], tuple[int, int]],
        *,
        stored: int,
        partials: Iterable[tuple[Digest, int]],
    ) -> None:
        self._budget = budget
        self._min_free = min_free
        self._capacity = capacity
        self._stored = stored
        self._unfinished = dict(partials)
        """Bytes that an unfinished blob has, or has been promised."""

    @property
    def budget(self) -> int | None:
        return self._budget

    @property
    def used(self) -> int:
        return self._stored + sum(self._unfinished.values())

    def reserve(self, digest: Digest, size: int) -> bool:
        """Promise room for a blob of `size` bytes; False: it has to be served uncached."""
        more = size - self._unfinished.get(digest, 0)
        if self._budget is not None and self.used + more > self._budget:
            return False
        free, total = self._capacity()
        if free - more < self._min_free(total):
            return False
        self._unfinished[digest] = size
        return True

    def keep_part(self, digest: Digest, held: int) -> None:
        """The fill ended early; `held` bytes of it stay on the disk."""
        if held:
            self._unfinished[digest] = held
        else:
            self._unfinished.pop(digest, None)

    def store(self, digest: Digest, size: int) -> None:
        """The blob is complete and stays."""
        self._unfinished.pop(digest, None)
        self._stored += size

    def forget(self, size: int) -> None:
        """A stored blob's bytes are gone."""
        self._stored -= size
