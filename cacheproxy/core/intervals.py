"""A set of bytes of a file, as sorted, disjoint, half-open intervals."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Intervals:
    """Neighbours that touch are one run, so a sequential download is a single pair however often it grew."""

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self) -> None:
        self._starts: list[int] = []  # ascending, and self._stops[i] < self._starts[i + 1] always
        self._stops: list[int] = []
        self._total = 0

    def add(self, start: int, stop: int) -> None:
        """Bytes from `start` up to `stop` are in the set from now on; some of them may have been before."""
        assert 0 <= start <= stop
        if start == stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._total += stop - start - sum(self._stops[first:last]) + sum(self._starts[first:last])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def covered_to(self, offset: int) -> int:
        """The end of the run that holds the byte at `offset`; `offset` where that byte is not in the set."""
        run = bisect_right(self._starts, offset) - 1
        return max(offset, self._stops[run]) if run >= 0 else offset

    def contains(self, start: int, stop: int) -> bool:
        """Whether each byte from `start` up to `stop` is in the set."""
        return start >= stop or self.covered_to(start) >= stop

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What is missing from `start` up to `stop`, ascending."""
        missing = []
        at = start
        run = bisect_right(self._stops, start)
        while at < stop:
            upto = min(stop, self._starts[run]) if run < len(self._starts) else stop
            if at < upto:
                missing.append((at, upto))
            at = self._stops[run] if run < len(self._stops) else stop
            run += 1
        return missing

    @property
    def total(self) -> int:
        """Bytes in the set."""
        return self._total

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The runs, ascending, as (start, stop)."""
        return iter(zip(self._starts, self._stops, strict=True))

    def __len__(self) -> int:
        """How many runs."""
        return len(self._starts)

    def __repr__(self) -> str:
        return f"Intervals({list(self)})"
