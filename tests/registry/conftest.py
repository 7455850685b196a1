from __future__ import annotations

import random
from pathlib import Path

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.registry.space import Space
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.partial import Partial
from tests.virtual import clock as clock


class Shelf:
    """A content store on disk, without rows."""

    def __init__(self, root: Path) -> None:
        self.content = DiskContent(root)
        self.kept: dict[Digest, bytes] = {}
        self.opening: OSError | None = None
        self.keeping: OSError | None = None

    def partial(self, digest: Digest, size: int) -> Partial:
        if self.opening is not None:
            raise self.opening
        return self.content.partial(digest, size)

    async def keep(self, partial: Partial) -> bool:
        if self.keeping is not None:
            raise self.keeping
        location = self.content.commit(partial)
        self.kept[partial.digest] = (self.content.root / location.path).read_bytes()
        return True


class FixedRoom:
    """Nothing is ever evicted."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.starved: list[int] = []

    async def reserve(self, digest: Digest, size: int) -> bool:
        return self._space.reserve(digest, size)

    def ran_out(self, size: int) -> None:
        self.starved.append(size)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "blobs")


def pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)
