"""Telling one sink what happened: in order, until it is taken, and never in anybody's way.

Events of one repository go one after the other; several repositories side by side. A receiver that does not
answer, or answers with what says something about itself, is left alone for a while, all of it; one that
refuses one event hears of that repository again later, and after REFUSALS tries without it. What was sent and
whose row is not gone yet is sent again after a crash, with the same id: at least once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from cacheproxy.core import events, webhooks
from cacheproxy.core.envelopes import Teller, told
from cacheproxy.core.events import Noted
from cacheproxy.core.webhooks import Pace, Verdict
from cacheproxy.registry import metrics
from cacheproxy.store.errors import StoreError
from cacheproxy.store.outbox import Outbox, OutboxRows, Postponed, Waiting
from cacheproxy.upstream.webhook import Answer, Unreached

log = structlog.get_logger()

SIDE_BY_SIDE = 4
"""Requests to one receiver at once."""

PAGE = 256
"""Events that are read in one go (about 1 KiB each)."""

REFUSALS = 5
"""Tries of an event that the receiver says it cannot take: 15 s to 30 s, since it seldom changes its mind."""

TICK = 0.25
LOOK = 5.0
"""Seconds between two looks whether this daemon noted anything, and at the rows, for what others did."""

LEASE = 60.0
"""Seconds for which a node that died keeps the others from going on: six tries of one event."""

PACE = Pace()
ROWS_AWAY = 5.0
SETTLES = 5.0
"""Seconds that a daemon that ends takes to note what was delivered."""


class Receives(Protocol):
    async def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Raises Unreached."""
        ...


@dataclass(frozen=True, slots=True)
class Hook:
    """A sink, as it is spoken to."""

    name: str
    shape: str
    """Of core.envelopes.FORMATS."""
    keys: tuple[bytes, ...]
    """What deliveries are signed with; none: they are not."""
    receiver: Receives


class Delivery:
    def __init__(
        self,
        hook: Hook,
        rows: OutboxRows,
        outbox: Outbox,
        teller: Teller,
        clock: Callable[[], float],
        node: str,
        *,
        shared: bool,
        pace: Pace = PACE,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`node` is this one's name; `shared`: other ones may deliver from the same rows."""
        self.hook = hook
        self.failing = ""
        """Why nothing is taken now; "": it is, as far as is known."""
        self.gone = False
        """The receiver said that it wants no more (410)."""
        self._rows = rows
        self._outbox = outbox
        self._teller = teller
        self._clock = clock
        self._node = node
        self._shared = shared
        self._pace = pace
        self._chance = chance
        self._failures = 0
        self._until = -math.inf
        """By trio's clock: left alone till then."""
        self._leased_until = -math.inf
        self._seen = 0
        self._stirred = False
        """Something was noted between the last two looks."""

    def resume(self) -> None:
        """Ask it again, whatever it said."""
        self.gone, self._until = False, -math.inf

    async def run(self) -> None:
        """For ever. What fails is tried again, and ends no daemon."""
        while True:
            try:
                found = await self._round()
            except (OSError, StoreError) as error:
                log.warning(
                    "events are not delivered: rows cannot be had", sink=self.hook.name, error=str(error)
                )
                await trio.sleep(ROWS_AWAY)
                continue
            if not found:
                await self._rest()

    async def _rest(self) -> None:
        """A count is looked at, since threads that write rows cannot wake a task.

        It grows before the commit: what was not there yet is looked for once more, soon.
        """
        ticks = 1 if self._stirred else round(LOOK / TICK)
        for _ in range(ticks):
            if self._outbox.noted != self._seen:
                return
            await trio.sleep(TICK)

    async def _round(self) -> bool:
        """Whether there was anything to do."""
        if self._left_alone():
            return False
        self._stirred, self._seen = self._outbox.noted != self._seen, self._outbox.noted
        # One alone tries whether it is well again.
        most = 1 if self._failures else PAGE
        waiting = await self._rows.waiting(self.hook.name, self._clock(), most)
        if not waiting or not await self._alone():
            return False
        lanes: dict[str, list[Waiting]] = {}
        for row in waiting:
            lanes.setdefault(row.repository, []).append(row)
        turns = trio.CapacityLimiter(SIDE_BY_SIDE)
        async with trio.open_nursery() as nursery:
            for lane in lanes.values():
                nursery.start_soon(self._lane, lane, turns)
        return True

    def _left_alone(self) -> bool:
        return self.gone or trio.current_time() < self._until

    async def _alone(self) -> bool:
        """Whether no other node delivers to it."""
        if not self._shared:
            return True
        now = self._clock()
        if now + LEASE / 2 > self._leased_until:
            if not await self._rows.lease(self.hook.name, self._node, now, now + LEASE):
                return False
            self._leased_until = now + LEASE
        return True

    async def _lane(self, lane: Sequence[Waiting], turns: trio.CapacityLimiter) -> None:
        """The events of one repository, until one is not taken."""
        async with turns:
            done: list[Waiting] = []
            later: Postponed | None = None
            refused: tuple[Waiting, str] | None = None
            try:
                for row in lane:
                    if self._left_alone() or not await self._alone():
                        break
                    verdict, said, wanted = await self._tell(row)
                    self._heard(verdict, said, wanted)
                    if verdict is Verdict.TAKEN:
                        done.append(row)
                        continue
                    if verdict is Verdict.REFUSED and row.tries + 1 >= REFUSALS:
                        refused = (row, said)
                    elif verdict is not Verdict.GONE:
                        later = Postponed(row, self._clock() + self._pause(verdict, row), said)
                    break
            finally:
                if done or later or refused:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + SETTLES):
                        await self._rows.told(done, later, refused, self._clock())

    async def _tell(self, row: Waiting) -> tuple[Verdict, str, float | None]:
        """What became of it, why, and when the receiver wants to hear again."""
        shape, keys = self.hook.shape, self.hook.keys
        envelope = told(shape, Noted(row.id, events.decode(row.event)), self._teller)
        signed = webhooks.headers(row.id, int(self._clock()), envelope.body, keys)
        headers = [("Content-Type", envelope.content_type), *signed]
        try:
            answer = await self.hook.receiver.post(headers, envelope.body)
        except Unreached as error:
            return Verdict.AWAY, str(error), None
        return webhooks.judge(answer.status, shape), f"answered {answer.status}", answer.retry_after

    def _heard(self, verdict: Verdict, said: str, wanted: float | None) -> None:
        metrics.WEBHOOK_DELIVERIES.labels(self.hook.name, verdict.name.lower()).inc()
        if verdict is Verdict.TAKEN:
            if self.failing:
                log.info("events are delivered again", sink=self.hook.name)
            self.failing, self._failures = "", 0
        elif verdict is Verdict.AWAY:
            self._away(said, wanted)
        elif verdict is Verdict.GONE:
            self.gone, self.failing = True, said
            advice = "take it out, or `cacheproxy events resume`"
            log.error("a webhook wants no events any more", sink=self.hook.name, reason=said, advice=advice)

    def _away(self, said: str, wanted: float | None) -> None:
        if not self._left_alone():  # several that were under way fail together, and count once
            self._failures += 1
            pause = max(self._pace.pause(self._failures, self._chance()), wanted or 0.0)
            self._until = trio.current_time() + pause
        if not self.failing:
            log.warning("events are not delivered", sink=self.hook.name, reason=said)
        self.failing = said

    def _pause(self, verdict: Verdict, row: Waiting) -> float:
        if verdict is Verdict.AWAY:
            return max(0.0, self._until - trio.current_time())
        return self._pace.pause(row.tries + 1, self._chance())
