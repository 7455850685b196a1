"""All sinks: what waits for each, what was given up, and what a person does about that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
import trio

from cacheproxy.core import events
from cacheproxy.core.errors import OCIError
from cacheproxy.registry import metrics
from cacheproxy.registry.webhooks import Delivery
from cacheproxy.store.errors import StoreError
from cacheproxy.store.outbox import Backlog, Bounds, Listed, Outbox, OutboxRows

log = structlog.get_logger()

TIDY = 30.0
"""Seconds between two looks at how much waits."""

STUCK = 900.0
"""Seconds that an event waits before its sink is called stuck."""

LISTED = 1000

BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class SinkCondition:
    sink: str
    configured: bool
    waiting: int
    oldest: float
    """When the first of these was noted; 0: none waits."""
    dead: int
    failing: str
    """Why the last try failed, at this node; "": it did not, or another node delivers."""
    gone: bool
    """It said that it wants no events any more."""
    stuck: bool


class Sinks:
    def __init__(
        self, rows: OutboxRows, outbox: Outbox, clock: Callable[[], float], bounds: Bounds = BOUNDS
    ) -> None:
        self.deliveries: Mapping[str, Delivery] = {}
        """By name; those of the configuration that is in force."""
        self._rows = rows
        self._outbox = outbox
        self._clock = clock
        self._bounds = bounds

    async def run(self) -> None:
        """For ever: what waits is counted, and bounded."""
        while True:
            try:
                await self._tidy()
            except (OSError, StoreError) as error:
                log.warning("waiting events are not looked through", error=str(error))
            await trio.sleep(TIDY)

    async def _tidy(self) -> None:
        tidied = await self._rows.tidy(self._clock(), self._bounds)
        for sink, count in tidied.given_up.items():
            metrics.WEBHOOK_LOST.labels(sink, "given_up").inc(count)
            advice = "see `cacheproxy events list --dead`; they can be replayed"
            log.warning("events were given up", sink=sink, events=count, advice=advice)
        for sink, count in tidied.dropped.items():
            metrics.WEBHOOK_LOST.labels(sink, "dropped").inc(count)
            log.warning("events that were given up are gone", sink=sink, events=count)
        backlog = {row.sink: row for row in await self._rows.backlog()}
        for sink in {*self.deliveries, *backlog}:
            row = backlog.get(sink) or Backlog(sink, 0, 0, 0.0, 0.0)
            metrics.WEBHOOK_WAITING.labels(sink).set(row.waiting)
            metrics.WEBHOOK_OLDEST.labels(sink).set(row.oldest)
            metrics.WEBHOOK_DEAD.labels(sink).set(row.dead)

    async def conditions(self) -> list[SinkCondition]:
        """By name. Raises StoreError."""
        backlog = {row.sink: row for row in await self._rows.backlog()}
        return [self._condition(sink, backlog.get(sink)) for sink in sorted({*self.deliveries, *backlog})]

    def _condition(self, sink: str, row: Backlog | None) -> SinkCondition:
        delivery = self.deliveries.get(sink)
        waiting, oldest, dead = (0, 0.0, 0) if row is None else (row.waiting, row.oldest, row.dead)
        gone = delivery is not None and delivery.gone
        return SinkCondition(
            sink,
            delivery is not None,
            waiting,
            oldest,
            dead,
            "" if delivery is None else delivery.failing,
            gone,
            gone or (waiting > 0 and self._clock() - oldest > STUCK),
        )

    async def list(self, sink: str | None, *, dead: bool) -> list[dict[str, Any]]:
        """The first LISTED events that wait, or that were given up."""
        return [_told(row) for row in await self._rows.list(sink, LISTED, dead=dead)]

    async def replay(self, sink: str | None, event: str | None) -> int:
        """What was given up waits again: how many. Raises OCIError 404 for an event that was not."""
        count = await self._rows.replay(sink, event, self._clock())
        self._outbox.stir()
        return _some(count, event)

    async def drop(self, sink: str | None, event: str | None, *, waiting: bool) -> int:
        """What was given up goes for good, and (`waiting`) what waits, too: how many. Raises OCIError 404."""
        return _some(await self._rows.drop(sink, event, dead=not waiting), event)

    def resume(self, sink: str) -> None:
        """Try a sink at once that is left alone. Raises OCIError 404."""
        delivery = self.deliveries.get(sink)
        if delivery is None:
            known = ", ".join(sorted(self.deliveries)) or "none"
            said = f"no [[webhook]] is named {sink}; there is: {known}"
            raise OCIError("UNSUPPORTED", said, status=404)
        delivery.resume()
        self._outbox.stir()


def _told(row: Listed) -> dict[str, Any]:
    return {
        "id": row.id,
        "sink": row.sink,
        "event": msgspec.to_builtins(events.decode(row.event)),
        "noted": row.noted,
        "dead": row.dead,
        "tries": row.tries,
        "error": row.error,
    }


def _some(count: int, event: str | None) -> int:
    if event is not None and not count:
        raise OCIError("UNSUPPORTED", f"there is no event {event} here that was given up", status=404)
    return count
