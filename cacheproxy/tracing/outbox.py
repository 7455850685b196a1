"""What was traced, on its way to the collector: a bounded queue, and a task that sends it in batches.

Requests append and never wait. The SDK's own processor would do that with a thread that nobody owns, and
counts nothing that is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import Counter

log = structlog.get_logger()

LAG = 2.0
"""Seconds a span waits for others at most."""

BATCH = 512
"""Spans in one request to the collector (about 0.5 MiB), and that end the waiting."""

BACKLOG = 4096
"""Spans that wait (about 4 KiB each) before new ones are dropped: the collector has stopped."""

FLUSH = 2.0
"""Seconds to send what is left when the daemon stops."""

SPANS = Counter(
    "cacheproxy_trace_spans",
    "Spans by what became of them: sent, failed (the collector did not take them), dropped (too many wait)",
    ["result"],
)
_SENT, _FAILED, _DROPPED = (SPANS.labels(result) for result in ("sent", "failed", "dropped"))


class Outbox(SpanProcessor):
    """Spans come by `on_end`, from the loop's thread only."""

    def __init__(self, exporter: SpanExporter, reason: Callable[[], str]) -> None:
        """`reason` says why the last export failed."""
        self._exporter = exporter
        self._reason = reason
        self._waiting: list[ReadableSpan] = []
        self._begun = trio.Event()
        self._enough = trio.Event()
        self._closing = False
        self._works = True
        self._thread = trio.CapacityLimiter(1)

    def on_end(self, span: ReadableSpan) -> None:
        if len(self._waiting) >= BACKLOG:
            _DROPPED.inc()
            return
        self._waiting.append(span)
        self._begun.set()
        if len(self._waiting) >= BATCH:
            self._enough.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Send what comes in the block, and for FLUSH seconds after it what is left."""
        # Of the block's end it hears by `_close`: a cancellation must not take the last spans.
        scope = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run, scope)
                try:
                    yield
                finally:
                    self._close()
                    scope.deadline = trio.current_time() + FLUSH
        finally:
            self._exporter.shutdown()
            _DROPPED.inc(len(self._waiting))

    def _close(self) -> None:
        self._closing = True
        self._begun.set()
        self._enough.set()

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            while self._waiting or not self._closing:
                await self._begun.wait()
                if not self._closing:
                    with trio.move_on_after(LAG):
                        await self._enough.wait()
                batch = self._waiting[:BATCH]
                del self._waiting[:BATCH]
                if not self._waiting and not self._closing:
                    self._begun, self._enough = trio.Event(), trio.Event()
                if batch:
                    await self._send(batch)

    async def _send(self, batch: list[ReadableSpan]) -> None:
        works = False
        try:
            # The exporter has its own time-out, and is left behind at the end of ours.
            result = await trio.to_thread.run_sync(
                self._exporter.export, batch, limiter=self._thread, abandon_on_cancel=True
            )
            works = result is SpanExportResult.SUCCESS
        except Exception:
            log.exception("traces lost")  # whatever is wrong with them ends no daemon
        finally:
            (_SENT if works else _FAILED).inc(len(batch))
        if works != self._works:
            self._works = works
            if works:
                log.info("traces are sent again")
            else:
                log.warning("traces are not sent", reason=self._reason())
