"""Answers that were made before: a warm manifest is one look-up and one send.

An entry is keyed by everything its answer depends on: method, Host and target. Whose it is stands beside it,
for whoever gives it out to ask whether the caller may have it. It is good until a time; what it says of a tag
cannot change before, since nobody asks the upstream before.

Nobody of this daemon, that is. What others change, or a person, ends an era: all entries go, and none is kept
that was being made meanwhile, from rows that were read before.
"""

from __future__ import annotations

from collections import OrderedDict

from cacheproxy.edge.message import Ready

CAPACITY = 32 << 20
"""Bytes of bodies and heads that are kept; the least recently used go."""

Key = tuple[bool, str, str, str]
"""Whether it is a redirect to the store, which not all clients get; method, Host, target."""


class ReadyAnswers:
    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        self._entries: OrderedDict[Key, tuple[Ready, str, float, float]] = OrderedDict()
        self._trusted = True
        self.era = 0
        """Noted by whoever makes an answer, before looking at anything that it depends on."""

    def get(self, key: Key, now: float) -> tuple[Ready, str] | None:
        """The answer, and the repository that it is from, by canonical name."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        ready, repository, since, until = entry
        if not since <= now < until:  # before: the clock was set back
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return ready, repository

    def put(self, key: Key, ready: Ready, repository: str, since: float, until: float, era: int) -> None:
        """Good from now (`since`) until a time."""
        if era != self.era or not self._trusted:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (ready, repository, since, until)
        self._size += _weight(key, ready)
        while self._size > self._capacity:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Something changed that answers depend on."""
        self.era += 1
        self._entries.clear()
        self._size = 0

    def trust(self) -> None:
        """From now on `clear` is called for every change."""
        self.clear()
        self._trusted = True

    def distrust(self) -> None:
        """It may not be: nothing is kept until it is again."""
        self.clear()
        self._trusted = False

    def _drop(self, key: Key) -> None:
        ready, _, _, _ = self._entries.pop(key)
        self._size -= _weight(key, ready)


def _weight(key: Key, ready: Ready) -> int:
    """With 512 for the entry's own objects, roughly."""
    return len(ready.head) + len(ready.body) + len(key[2]) + len(key[3]) + 512
