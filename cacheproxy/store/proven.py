"""What becomes a stored blob."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cacheproxy.core.digest import Digest


class Proven(Protocol):
    """A file below the store's root that is all of a blob: one that was fetched, or one that was sent."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, count: int) -> bytes:
        """Between 1 and `count` bytes."""
        ...

    def rename(self, target: Path) -> None:
        """Make the bytes last, then give them this name; the caller makes that last. Raises OSError."""
        ...

    def forget(self) -> None:
        """It was renamed: what else there was of it goes."""
        ...

    def discard(self) -> None:
        """It is stored elsewhere: it goes."""
        ...
