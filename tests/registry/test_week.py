"""A budget of 1 GiB under a week of pulls, on a virtual clock: what eviction is worth, beside plain LRU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from trio.testing import MockClock

from tests.registry.storehouse import Storehouse, View, digest, storehouse
from tests.registry.traffic import Layer, Pull, least_recently_used, week

BUDGET = 1 << 30
PULLS = 1400
FROM_UPSTREAM, TO_CLIENT = 20e6, 100e6
"""Bytes a second."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: a week of syncs is not what is measured."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@dataclass
class Week:
    house: Storehouse
    requests: list[Layer] = field(default_factory=list)
    hit: int = 0
    uncached: int = 0
    arriving: dict[int, trio.Event] = field(default_factory=dict)
    most_on_disk: int = 0
    """Bytes of what is stored, and all of what is arriving."""

    async def pull(self, pull: Pull, begin: float) -> None:
        await trio.sleep_until(begin + pull.time)
        for layer in pull.layers:
            self.requests.append(layer)
            await self._read(layer)

    async def _read(self, layer: Layer) -> None:
        self.house.now = trio.current_time()
        if (arriving := self.arriving.get(layer.name)) is not None:
            self.hit += layer.size
            await arriving.wait()
        elif await self.house.here(layer.name):
            self.hit += layer.size
            view = self.house.recency.reading(View(digest(layer.name)))
            await trio.sleep(layer.size / TO_CLIENT)
            view.close()
        else:
            await self._fill(layer)

    async def _fill(self, layer: Layer) -> None:
        self.arriving[layer.name] = trio.Event()
        if await self.house.eviction.reserve(digest(layer.name), layer.size):
            self._look(layer.size)
            await trio.sleep(layer.size / FROM_UPSTREAM)
            await self.house.store(layer.name, layer.size)
            self._look(0)
        else:
            self.uncached += 1
        self.arriving.pop(layer.name).set()

    def _look(self, more: int) -> None:
        self.most_on_disk = max(self.most_on_disk, self.house.content.used + more, self.house.space.used)


async def test_a_week_within_a_gibibyte(
    folder: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Sixty thousand looks that find nothing are left out.
    monkeypatch.setattr("cacheproxy.registry.eviction.CHECK_EVERY", 3600.0)
    monkeypatch.setattr("cacheproxy.registry.eviction.TIDY_EVERY", 6 * 3600.0)
    monkeypatch.setattr("cacheproxy.registry.recency.WRITE_EVERY", 900.0)
    async with storehouse(folder, BUDGET) as house, trio.open_nursery() as daemon:
        await daemon.start(house.eviction.run)
        daemon.start_soon(house.recency.run)
        simulated = Week(house)
        async with trio.open_nursery() as clients:
            for pull in week(PULLS):
                clients.start_soon(simulated.pull, pull, trio.current_time())
        daemon.cancel_scope.cancel()
    asked = sum(layer.size for layer in simulated.requests)
    optimum = least_recently_used(simulated.requests, BUDGET) / asked
    ratio = simulated.hit / asked
    largest = max(layer.size for layer in simulated.requests)
    with capsys.disabled():
        sys.stdout.write(
            f"\na week, {len(simulated.requests)} reads of {asked / (1 << 30):.1f} GiB: {ratio:.1%} of the"
            f" bytes were here (plain LRU: {optimum:.1%}), at most {simulated.most_on_disk / BUDGET:.1%} of"
            f" the budget in use, {simulated.uncached} uncached\n"
        )
    assert simulated.most_on_disk <= BUDGET + largest
    assert simulated.uncached == 0
    assert ratio >= 0.95 * optimum
    assert 0.2 < optimum < 0.9, "a cache that has nothing to choose proves nothing"
