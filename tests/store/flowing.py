"""A store that gives the bytes of DATA, in chunks: noted, held up and failing as told."""

from __future__ import annotations

import threading

CHUNK = 64 << 10
DATA = bytes(range(251)) * (40 * CHUNK // 251 + 1)
SIZE = 40 * CHUNK - 7


class Store:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        """The GETs, as [start, stop)."""
        self.given = 0
        """Where the bytes end that were given last."""
        self.refusals: dict[int, Exception] = {}
        """By where a GET begins; once each."""
        self.cuts: dict[int, Exception] = {}
        """By the first offset that is not given; once each."""
        self.open = threading.Event()
        self.open.set()

    def get(self, start: int, stop: int) -> Reading:
        self.asked.append((start, stop))
        assert self.open.wait(10)
        if start in self.refusals:
            raise self.refusals.pop(start)
        return Reading(self, start, stop)


class Reading:
    def __init__(self, store: Store, start: int, stop: int) -> None:
        self._store = store
        self._at, self._stop = start, stop

    def read(self) -> bytes:
        assert self._store.open.wait(10)
        if self._at in self._store.cuts:
            raise self._store.cuts.pop(self._at)
        chunk = DATA[self._at : min(self._at + CHUNK, self._stop)]
        self._at += len(chunk)
        self._store.given = self._at
        return chunk
