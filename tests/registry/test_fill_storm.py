"""Fills under everything at once, by chance: readers of all kinds, faults, mirrors, full disks.

Whatever happens, nobody hangs, nobody gets unproven or wrong bytes for the blob's, nothing is left open, and
where the upstream has no fault no byte of it comes twice.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.blob import BlobBroken, BlobView, Span
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry import plan
from cacheproxy.registry.fill import FillRules, withheld_from
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.transfer import Source
from cacheproxy.store.partial import Partial
from tests.registry.conftest import Shelf, pattern
from tests.registry.fakes import Answer, FakeUpstream, breaks_after, claims, ends_after, lies, refuses
from tests.registry.test_fill import fills
from tests.store.conftest import open_descriptors

MIB = 1 << 20


@dataclass
class Storm:
    chance: Random
    upstream: FakeUpstream
    kinds: Sequence[str]
    """Of faults, each as likely as the next; "" is none."""

    def fault(self, answer: Answer) -> None:
        chance = self.chance
        causes = Cause.CONNECT, Cause.TIMEOUT, Cause.SERVER, Cause.BREAKER, Cause.MISSING, Cause.THROTTLED
        match chance.choice(self.kinds):
            case "breaks":
                breaks_after(chance.randrange(len(answer.body) or 1), chance.choice(causes[:2]))(answer)
            case "ends":
                ends_after(chance.randrange(len(answer.body) or 1))(answer)
            case "refuses":
                refuses(chance.choice(causes), chance.choice([None, 1, 20]))(answer)
            case "ignores the range":
                answer.status, answer.start, answer.body = 200, 0, self.upstream.data
                answer.ranges = chance.random() < 0.5
            case "claims another size":
                claims(len(self.upstream.data) + 1)(answer)
            case "lies":
                lies(answer)

    @property
    def faultless(self) -> bool:
        return set(self.kinds) == {""} and self.upstream.ranges

    def spans(self) -> list[Span]:
        size, spans = len(self.upstream.data), list[Span]()
        for _ in range(self.chance.choice([1, 1, 3])):
            start = self.chance.choice([0, self.chance.randrange(size)])
            stop = self.chance.randrange(start, size) + 1
            bounded = self.chance.random() < 0.5
            spans.append(Span(start, stop if bounded else size, bounded=bounded))
        return spans

    async def read(self, view: BlobView, span: Span) -> None:
        at, leaves = span.start, self.chance.random() < 0.2
        while at < span.stop and not (leaves and self.chance.random() < 0.05):
            count = min(await view.available(at, span), self.chance.choice([MIB, 100_000]))
            fd = view.fileno()
            part = os.pread(fd, count, at) if fd is not None else await view.read(at, count)
            if part != self.upstream.data[at : at + len(part)]:
                assert "lies" in self.kinds
                whole = span.start == 0 and not span.bounded
                assert not whole or at + len(part) <= withheld_from(view.size), "sent unproven"
            at += len(part)
            await trio.sleep(self.chance.choice([0, 0, 0, 1]))

    async def client(self, shelf: Shelf, all_fills: Fills) -> None:
        await trio.sleep(self.chance.choice([0, 1, 10]) * self.chance.random())
        for _ in range(3):
            if self.upstream.digest in shelf.kept:
                return
            source = Source(self.upstream, "library/debian")
            view, _ = await all_fills.join(self.upstream.digest, len(self.upstream.data), source)
            try:
                for span in self.spans():
                    await self.read(view, span)
            except UpstreamError:
                assert not self.faultless
            except BlobBroken:
                assert "lies" in self.kinds
            finally:
                view.close()


def storm(chance: Random) -> Storm:
    size = chance.choice([1, 1000, MIB, MIB + 1, 2 * MIB + 77, 6 * MIB])
    upstream = FakeUpstream(
        pattern(size, chance.randrange(1 << 30)),
        mirrors=chance.choice([1, 1, 2, 3]),
        rate=chance.choice([None, 100_000, MIB, 8 * MIB]),
        ranges=chance.random() < 0.75,
    )
    kinds = ["breaks", "ends", "refuses", "ignores the range", "claims another size", "lies"]
    calm = [""] * chance.choice([3, 10])
    return Storm(chance, upstream, calm + chance.sample(kinds, chance.choice([0, 1, 1, 3, 6])))


@pytest.mark.parametrize("seed", range(40))
async def test_storm(seed: int, shelf: Shelf, clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(seed)
    here = storm(chance)
    monkeypatch.setattr(plan, "NEAR", chance.choice([64 << 10, MIB, plan.NEAR]))
    monkeypatch.setattr(plan, "STEP", chance.choice([1000, plan.STEP]))
    rules = FillRules(
        parallel_from=chance.choice([None, 1]),
        ranges=chance.choice([2, 4]),
        finish_share=chance.choice([0.0, 0.5, math.inf]),
        piece=chance.choice([100_000, MIB]),
    )
    full = chance.random() < 0.2
    if full:
        fill_up(monkeypatch, chance.randrange(len(here.upstream.data) + 1))
    here.upstream.faults = [here.fault] * 10_000
    descriptors = open_descriptors()
    with trio.fail_after(10_000):
        async with fills(shelf, rules) as all_fills:
            async with trio.open_nursery() as clients:
                for _ in range(chance.randint(1, 6)):
                    clients.start_soon(here.client, shelf, all_fills)
            while list(all_fills):
                await trio.sleep(1)
            await trio.sleep(1)
            assert here.upstream.at_once == 0
    assert open_descriptors() == descriptors
    if here.faultless and not full:
        on_the_wire = here.upstream.chunk * len(here.upstream.answers)
        assert here.upstream.sent <= len(here.upstream.data) + on_the_wire


def fill_up(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    def write(self: Partial, offset: int, chunks: Sequence[bytes]) -> None:
        if offset + sum(map(len, chunks)) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, offset, chunks)

    real = Partial.write
    monkeypatch.setattr(Partial, "write", write)
