"""How much may be cached: the budget and the disk's reserve, asked before a byte is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cacheproxy.core.digest import Digest

LOW = 0.95
"""The low mark. Where a limit is reached (the high mark), eviction goes on until a twentieth of it is free
again: the fills of the next minutes then wait for nobody, and little that could still be read is gone.
"""


class Need(NamedTuple):
    """Bytes that have to go, by the limit that is reached; 0: it is not."""

    budget: int
    min_free: int

    @property
    def bytes(self) -> int:
        """One byte serves both."""
        return max(self)

    @property
    def reason(self) -> str:
        return "budget" if self.budget >= self.min_free else "min_free"


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
        self._parts = dict(partials)
        """Bytes of unfinished blobs that no fill is bringing."""
        self._promised: dict[Digest, int] = {}
        """Bytes of blobs that are arriving."""
        self.coming: Callable[[], int] = lambda: 0
        """Of the promised bytes those not written yet: the disk still calls their room free."""

    def limit(self, budget: int | None, min_free: Callable[[int], int]) -> None:
        """From now on. What is beyond it goes with the next look at the disk."""
        self._budget = budget
        self._min_free = min_free

    @property
    def budget(self) -> int | None:
        return self._budget

    @property
    def used(self) -> int:
        return self.evictable + sum(self._promised.values())

    @property
    def evictable(self) -> int:
        """Bytes that could go at most: what is arriving could not."""
        return self._stored + sum(self._parts.values())

    def unfinished(self, digest: Digest) -> bool:
        """Some of it is here, and nobody is bringing the rest."""
        return digest in self._parts

    def reserve(self, digest: Digest, size: int) -> bool:
        """Promise room for a blob of `size` bytes; False: something has to go first."""
        if self.lacks(digest, size) > 0:
            return False
        self._parts.pop(digest, None)
        self._promised[digest] = size
        return True

    def lacks(self, digest: Digest, size: int) -> int:
        """Bytes that have to go before there is room for a blob of `size` bytes."""
        return self._need({digest: size}, 1.0).bytes

    def need(self, wanted: Mapping[Digest, int]) -> Need:
        """What has to go to have room for blobs of these sizes: nothing, or enough for the low mark."""
        high, low = self._need(wanted, 1.0), self._need(wanted, LOW)
        return Need(low.budget if high.budget else 0, low.min_free if high.min_free else 0)

    def keep_part(self, digest: Digest, held: int) -> None:
        """The fill ended early; `held` bytes of it stay on the disk."""
        self._promised.pop(digest, None)
        if held:
            self._parts[digest] = held

    def store(self, digest: Digest, size: int) -> None:
        """The blob is complete and stays."""
        self._promised.pop(digest, None)
        self._stored += size

    def forget(self, size: int) -> None:
        """A stored blob's bytes are gone."""
        self._stored -= size

    def recount(self, stored: int) -> None:
        """So many bytes are stored, by the rows: what other nodes have stored and evicted is in it."""
        self._stored = stored

    def drop_parts(self, digests: Iterable[Digest]) -> int:
        """Unfinished blobs are gone; says how many bytes they had. What arrives anew stays counted."""
        return sum(self._parts.pop(digest, 0) for digest in digests)

    def _need(self, wanted: Mapping[Digest, int], mark: float) -> Need:
        more = sum(
            size - self._promised.get(digest, self._parts.get(digest, 0)) for digest, size in wanted.items()
        )
        over = 0 if self._budget is None else self.used + more - int(mark * self._budget)
        free, total = self._capacity()
        short = int((2 - mark) * self._min_free(total)) + self.coming() + more - free
        return Need(max(0, over), max(0, short))
