"""Wrong passwords, counted: by name, by address, and by both together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cacheproxy.core.access import Address

FREE_TOGETHER, FREE_BY_NAME, FREE_BY_ADDRESS = 5, 30, 100
"""Wrong ones before a pause: a person's slips, a guesser with many addresses, an address with many people."""

LONGEST_PAUSE = 60.0
"""Seconds. Each wrong one after the free ones doubles the pause."""

FORGOTTEN_AFTER = 600.0
"""Seconds without another wrong one."""

MOST = 16384
"""Counts that are kept."""

NAME, NETWORK = 128, 8
"""Characters of a name, and bytes of an address, that count: who has an IPv6 address has 2^64 of them."""

Key = tuple[str | None, bytes | None]
"""Name and network; None: whatever it is."""


class _Count(NamedTuple):
    wrong: int
    last: float


class Guesses:
    def __init__(self) -> None:
        self._counts: dict[Key, _Count] = {}

    def pause(self, name: str, address: Address | None, now: float) -> float:
        """Seconds until another password is looked at."""
        return max(self._pause(key, free, now) for key, free in _keys(name, address))

    def wrong(self, name: str, address: Address | None, now: float) -> None:
        if len(self._counts) >= MOST:
            self._counts = {
                key: count for key, count in self._counts.items() if now - count.last < LONGEST_PAUSE
            }
        if len(self._counts) >= MOST:
            self._counts.clear()
        for key, _ in _keys(name, address):
            before = self._counts.get(key)
            recent = before is not None and now - before.last < FORGOTTEN_AFTER
            self._counts[key] = _Count(before.wrong + 1 if before is not None and recent else 1, now)

    def right(self, name: str, address: Address | None) -> None:
        """Who knows one password of an address may still be guessing others: that count stays."""
        together, *_ = _keys(name, address)
        self._counts.pop(together[0], None)

    def _pause(self, key: Key, free: int, now: float) -> float:
        count = self._counts.get(key)
        if count is None or count.wrong < free:
            return 0.0
        pause = min(LONGEST_PAUSE, 2.0 ** min(count.wrong - free, 10))
        return max(0.0, count.last + pause - now)


def _keys(name: str, address: Address | None) -> Iterator[tuple[Key, int]]:
    network = b"" if address is None else address.packed[:NETWORK]
    yield (name[:NAME], network), FREE_TOGETHER
    yield (name[:NAME], None), FREE_BY_NAME
    yield (None, network), FREE_BY_ADDRESS
