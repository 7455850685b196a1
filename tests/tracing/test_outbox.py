"""Spans wait in a bounded queue, go out in batches, and hold nobody up."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from cacheproxy.tracing import outbox
from cacheproxy.tracing.outbox import Outbox


class Exporter(SpanExporter):
    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.results: list[SpanExportResult] = []
        """Of the next exports; then success."""
        self.error: Exception | None = None
        self.let = threading.Event()
        """Exports end while it is set."""
        self.let.set()
        self.over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.let.wait(20)
        if self.error is not None:
            raise self.error
        self.batches.append([span.name for span in spans])
        return self.results.pop(0) if self.results else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.over = True


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    monkeypatch.setattr(outbox, "LAG", 0.01)
    return Exporter()


def span(name: str = "span") -> ReadableSpan:
    return ReadableSpan(name)


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("cacheproxy_trace_spans_total", {"result": result}) or 0.0


async def until(box: Exporter, count: int) -> None:
    with trio.fail_after(30):
        while len(box.batches) < count:
            await trio.sleep(0.005)


async def test_spans_wait_for_others_and_go_out_in_order(exporter: Exporter) -> None:
    box, sent = Outbox(exporter, lambda: ""), counted("sent")
    async with box.open():
        for name in "abc":
            box.on_end(span(name))
        await until(exporter, 1)
        box.on_end(span("d"))
        await until(exporter, 2)
    assert exporter.batches == [["a", "b", "c"], ["d"]]
    assert exporter.over
    assert counted("sent") == sent + 4


async def test_a_full_batch_does_not_wait(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LAG", 3600.0)
    monkeypatch.setattr(outbox, "BATCH", 3)
    box = Outbox(exporter, lambda: "")
    async with box.open():
        for name in "abcdef":
            box.on_end(span(name))
        await until(exporter, 2)
        assert exporter.batches == [["a", "b", "c"], ["d", "e", "f"]]


async def test_what_is_too_much_for_a_hanging_collector_is_dropped_and_counted(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BACKLOG", 5)
    monkeypatch.setattr(outbox, "BATCH", 2)
    exporter.let.clear()
    box, dropped = Outbox(exporter, lambda: ""), counted("dropped")
    async with box.open():
        box.on_end(span("first"))
        await trio.sleep(0.1)  # it is with the collector
        for _ in range(8):
            box.on_end(span())
        assert counted("dropped") == dropped + 3
        exporter.let.set()
    assert sum(map(len, exporter.batches)) == 6


async def test_the_end_sends_what_is_left(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LAG", 3600.0)
    box = Outbox(exporter, lambda: "")
    async with box.open():
        box.on_end(span("last"))
    assert exporter.batches == [["last"]]


async def test_so_does_a_cancellation(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LAG", 3600.0)
    box = Outbox(exporter, lambda: "")
    with trio.CancelScope() as scope:
        async with box.open():
            box.on_end(span("last"))
            scope.cancel()
            await trio.sleep_forever()
    assert exporter.batches == [["last"]]
    assert exporter.over


async def test_a_hanging_collector_does_not_keep_the_daemon(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FLUSH", 0.2)
    monkeypatch.setattr(outbox, "BATCH", 1)
    exporter.let.clear()
    box, failed, dropped = Outbox(exporter, lambda: ""), counted("failed"), counted("dropped")
    began = trio.current_time()
    async with box.open():
        for _ in range(3):
            box.on_end(span())
    assert 0.1 < trio.current_time() - began < 2
    assert (counted("failed"), counted("dropped")) == (failed + 1, dropped + 2)
    exporter.let.set()


async def test_a_collector_that_fails_and_comes_back_is_two_lines(exporter: Exporter) -> None:
    exporter.results = [SpanExportResult.FAILURE] * 3
    box, failed = Outbox(exporter, lambda: "refused"), counted("failed")
    with capture_logs() as lines:
        async with box.open():
            for n in range(1, 6):
                box.on_end(span())
                await until(exporter, n)
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("traces are not sent", "refused"),
        ("traces are sent again", None),
    ]
    assert counted("failed") == failed + 3


async def test_a_fault_of_the_exporter_ends_no_daemon(exporter: Exporter) -> None:
    exporter.error = ValueError("unexpected")
    box = Outbox(exporter, lambda: "")
    with capture_logs() as lines:
        async with box.open():
            box.on_end(span())
            await trio.sleep(0.1)
            exporter.error = None
            box.on_end(span("after"))
    assert exporter.batches == [["after"]]
    assert lines[0]["event"] == "traces lost"
