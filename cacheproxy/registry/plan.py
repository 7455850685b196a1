"""Which bytes of a blob to fetch next: bookkeeping over what was received, is claimed, and is waited for.

A claim is a run of missing bytes that one transfer has undertaken to bring. Claims never overlap one another
or what was received, so no byte is asked for twice. A reader far ahead of every transfer splits the claim
that would reach it last: its owner stops at the new end, a second transfer starts where the reader waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cacheproxy.core.blob import Span
from cacheproxy.core.intervals import Intervals

NEAR = 8 << 20
"""A transfer at most so many bytes short of a waiting reader arrives sooner than a new request."""

STEP = 256 << 10
"""What a bounded read brings is rounded up to this, so that small neighbouring reads share one request."""


@dataclass(eq=False, slots=True)
class Claim:
    """[position, stop) is still to come: `position` moves with each byte, `stop` falls at a split."""

    position: int
    stop: int

    @property
    def left(self) -> int:
        return self.stop - self.position


@dataclass(frozen=True, slots=True)
class Demand:
    """A reader waits at `offset`, for `span`."""

    offset: int
    span: Span


class Plan:
    def __init__(self, size: int, held: Iterable[tuple[int, int]]) -> None:
        self.size = size
        self.received = Intervals()
        """Bytes that are in the file or on their way into it."""
        for start, stop in held:
            self.received.add(start, stop)
        self.claims: list[Claim] = []

    def next(self, demands: Iterable[Demand], *, whole: bool, piece: int | None, split: bool) -> Claim | None:
        """Claim the run that is most wanted: first what a reader waits for, then (if `whole`) the lowest gap.

        `piece` limits a claim's length in bytes; None takes the gap to its end. `split` allows a second
        transfer inside another's claim; without it, a reader in a claimed run waits for its owner.
        """
        for demand in demands:
            claim = self._for(demand, piece, split=split)
            if claim is not None:
                return claim
        return self._lowest(piece) if whole else None

    def arrived(self, claim: Claim, count: int) -> None:
        """`count` bytes came in at the claim's position."""
        self.received.add(claim.position, claim.position + count)
        claim.position += count

    def release(self, claim: Claim) -> None:
        """The transfer ended; what it did not bring is a gap again."""
        self.claims.remove(claim)

    def take_all(self, claim: Claim) -> None:
        """The upstream does no ranges and sends everything: the claim takes in what is free around it."""
        if self.received.total == 0 and self.claims == [claim]:
            claim.position = 0
        claim.stop = self._free_until(claim.stop) if claim.stop < self.size else claim.stop

    def _for(self, demand: Demand, piece: int | None, *, split: bool) -> Claim | None:
        missing = self.received.covered_to(demand.offset)
        if missing >= demand.span.stop:
            return None
        owner = self._owner(missing)
        if owner is None:
            return self._claim(missing, self._cut(missing, self._free_until(missing), demand.span, piece))
        if not split or missing - owner.position <= NEAR:
            return None
        # What the new claim leaves of the old one's run is a gap again, and the next claim's business.
        stop, owner.stop = owner.stop, missing
        return self._claim(missing, self._cut(missing, stop, demand.span, piece))

    @staticmethod
    def _cut(start: int, stop: int, span: Span, piece: int | None) -> int:
        if span.bounded:
            stop = min(stop, -(-span.stop // STEP) * STEP)
        return stop if piece is None else min(stop, start + piece)

    def _lowest(self, piece: int | None) -> Claim | None:
        start = self._lowest_gap()
        if start >= self.size:
            return None
        stop = self._free_until(start)
        return self._claim(start, stop if piece is None else min(stop, start + piece))

    def _lowest_gap(self) -> int:
        """The first byte neither held nor claimed; `size` when there is none."""
        at = 0
        while at < self.size:
            past = self.received.covered_to(at)
            owner = self._owner(past)
            if owner is not None:
                past = owner.stop
            if past == at:
                return at
            at = past
        return self.size

    def _free_until(self, start: int) -> int:
        """Where the gap at `start` ends: at held bytes, another claim, or the end of the blob."""
        gaps = self.received.gaps(start, self.size)
        if not gaps or gaps[0][0] != start:
            return start
        stop = gaps[0][1]
        # A claim with nothing left is no end: its transfer has only not been released yet.
        begins = (claim.position for claim in self.claims if claim.left and claim.position >= start)
        return min([stop, *begins])

    def _owner(self, offset: int) -> Claim | None:
        for claim in self.claims:
            if claim.position <= offset < claim.stop:
                return claim
        return None

    def _claim(self, start: int, stop: int) -> Claim:
        claim = Claim(start, stop)
        self.claims.append(claim)
        return claim
