from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.blob import Span
from cacheproxy.core.digest import Digest
from cacheproxy.registry import recency
from cacheproxy.registry.recency import WRITE_EVERY, Recency
from cacheproxy.store.errors import StoreBusy

A, B = Digest.of(b"a"), Digest.of(b"b")


@dataclass
class View:
    digest: Digest
    size: int = 3
    closed: int = 0

    async def available(self, offset: int, span: Span) -> int:
        await trio.lowlevel.checkpoint()
        return span.stop - offset

    def fileno(self) -> int:
        return 7

    def failed(self, error: Exception) -> bool:
        return False

    async def read(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"abc"[offset : offset + count]

    def close(self) -> None:
        self.closed += 1


@dataclass
class Rows:
    batches: list[dict[Digest, float]] = field(default_factory=list)
    failure: Exception | None = None
    seconds: float = 0.0

    async def record(self, reads: Iterable[tuple[Digest, float]]) -> None:
        batch = dict(reads)
        await trio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def reads(rows: Rows) -> Recency:
    return Recency(rows.record, trio.current_time)


async def test_reading_writes_nothing_at_once(reads: Recency, rows: Rows) -> None:
    reads.reading(View(A)).close()
    await trio.lowlevel.checkpoint()
    assert rows.batches == []


async def test_reads_are_written_in_one_batch_with_the_last_time_of_each(
    reads: Recency, rows: Rows, nursery: trio.Nursery, clock: MockClock
) -> None:
    nursery.start_soon(reads.run)
    begin = trio.current_time()
    for digest in (A, B, A):
        await trio.sleep(1)
        reads.reading(View(digest)).close()
    await trio.sleep(WRITE_EVERY)
    (batch,) = rows.batches
    assert batch == pytest.approx({A: begin + 3, B: begin + 2})


async def test_without_reads_nothing_is_written(
    reads: Recency, rows: Rows, nursery: trio.Nursery, clock: MockClock
) -> None:
    nursery.start_soon(reads.run)
    await trio.sleep(10 * WRITE_EVERY)
    assert rows.batches == []


async def test_many_reads_are_written_in_several_transactions(
    reads: Recency, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recency, "BATCH", 2)
    digests = [Digest.of(bytes([n])) for n in range(5)]
    for digest in digests:
        reads.reading(View(digest)).close()
    await reads.write()
    assert [len(batch) for batch in rows.batches] == [2, 2, 1]
    assert {digest for batch in rows.batches for digest in batch} == set(digests)


async def test_what_cannot_be_written_is_written_later(reads: Recency, rows: Rows) -> None:
    reads.reading(View(A)).close()
    rows.failure = StoreBusy(16, "busy")
    await reads.write()
    assert reads.holds(A)
    rows.failure = None
    await reads.write()
    assert [set(batch) for batch in rows.batches] == [{A}]
    assert not reads.holds(A)


async def test_a_read_while_it_is_written_is_written_again(
    reads: Recency, rows: Rows, nursery: trio.Nursery, clock: MockClock
) -> None:
    rows.seconds = 2.0
    reads.reading(View(A)).close()
    nursery.start_soon(reads.write)
    await trio.sleep(1)
    reads.reading(View(A)).close()
    await trio.sleep(2)
    assert reads.holds(A)
    await reads.write()
    assert len(rows.batches) == 2
    assert rows.batches[1][A] > rows.batches[0][A]


async def test_what_is_noted_is_written_at_a_shutdown(reads: Recency, rows: Rows, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reads.run)
        await trio.sleep(1)
        reads.reading(View(A)).close()
        nursery.cancel_scope.cancel()
    assert [set(batch) for batch in rows.batches] == [{A}]


async def test_a_blob_is_held_until_its_last_reader_is_gone(reads: Recency) -> None:
    first, second = reads.reading(View(A)), reads.reading(View(A))
    await reads.write()
    first.close()
    first.close()
    assert reads.holds(A)
    assert not reads.holds(B)
    second.close()
    assert not reads.holds(A)


async def test_the_view_is_the_one_that_was_given(reads: Recency) -> None:
    inner = View(A)
    view = reads.reading(inner)
    assert (view.digest, view.size, view.fileno()) == (A, 3, 7)
    assert await view.available(1, Span(0, 3, bounded=False)) == 2
    assert await view.read(1, 1) == b"b"
    view.close()
    assert inner.closed == 1
