"""The line of what may go, over rows that come in pages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from cacheproxy.core.digest import Digest
from cacheproxy.registry import oldest
from cacheproxy.registry.oldest import Oldest
from cacheproxy.store.disk import Unfinished
from cacheproxy.store.rows import Evictable

PAGE = 3


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oldest, "PAGE", PAGE)


def digest(n: int) -> Digest:
    return Digest.of(str(n).encode())


def blob(n: int, size: int = 10) -> Evictable:
    """The n-th oldest."""
    return Evictable(digest(n), size, 1, f"blobs/{n}", float(n), frozenset())


def part(n: int, size: int = 10) -> Unfinished:
    """As old as the n-th blob."""
    return Unfinished(digest(-n - 1), size, float(n))


class Rows:
    def __init__(self, blobs: Sequence[Evictable]) -> None:
        self.blobs = list(blobs)
        self.looks = 0

    async def evictable(self, n: int, after: Evictable | None = None) -> list[Evictable]:
        self.looks += 1
        begin = 0 if after is None else self.blobs.index(after) + 1
        return self.blobs[begin : begin + n]


def line(rows: Rows, *parts: Unfinished, held: Sequence[int] = ()) -> Oldest:
    return Oldest(rows, {digest(n) for n in held}.__contains__, parts)


async def test_as_many_are_taken_as_have_the_bytes_that_are_wanted() -> None:
    taken = await line(Rows([blob(n) for n in range(5)])).take(25, 100)
    assert taken == [blob(0), blob(1), blob(2)]


async def test_no_more_are_taken_than_a_batch_has() -> None:
    of = line(Rows([blob(n) for n in range(5)]))
    assert await of.take(1000, 2) == [blob(0), blob(1)]
    assert await of.take(1000, 2) == [blob(2), blob(3)]


async def test_the_next_page_is_not_read_before_it_is_needed() -> None:
    rows = Rows([blob(n) for n in range(3 * PAGE)])
    await line(rows).take(1000, PAGE)
    assert rows.looks == 1


async def test_what_is_held_is_passed_over() -> None:
    of = line(Rows([blob(n) for n in range(5)]), held=[0, 1, 2, 4])
    assert await of.take(1000, 100) == [blob(3)]


async def test_an_unfinished_download_has_the_place_of_its_last_byte() -> None:
    of = line(Rows([blob(0), blob(2)]), part(1), part(3))
    assert await of.take(1000, 100) == [blob(0), part(1), blob(2), part(3)]


async def test_bytes_are_counted_as_far_as_they_are_asked_for() -> None:
    rows = Rows([blob(n) for n in range(3 * PAGE)])
    assert await line(rows).has(PAGE * 10) == PAGE * 10
    assert rows.looks == 1


async def test_all_bytes_that_can_go_are_told_when_they_are_too_few() -> None:
    assert await line(Rows([blob(n) for n in range(5)]), part(1), held=[2]).has(1000) == 50


async def test_what_was_taken_cannot_go_again() -> None:
    of = line(Rows([blob(0), blob(1)]))
    await of.take(10, 1)
    assert await of.has(1000) == 10


async def test_nothing_is_taken_where_nothing_is() -> None:
    assert await line(Rows([])).take(10, 10) == []


@given(st.lists(st.integers(1, 50), max_size=12), st.lists(st.integers(0, 12), max_size=4), st.integers(1, 4))
def test_all_go_once_and_the_older_first(sizes: list[int], ages: list[int], most: int) -> None:
    @trio_test
    async def walk() -> None:
        blobs = [blob(n, size) for n, size in enumerate(sizes)]
        of, taken = line(Rows(blobs), *[part(age) for age in ages]), list[Evictable | Unfinished]()
        while batch := await of.take(1000, most):
            taken += batch
        assert len(taken) == len(blobs) + len(ages)
        times = [item.used if isinstance(item, Evictable) else item.mtime for item in taken]
        assert times == sorted(times)

    walk()
