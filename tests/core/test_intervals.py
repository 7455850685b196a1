"""Intervals against the plainest model: a set of integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.intervals import Intervals

offsets = st.integers(0, 40)
pairs = st.tuples(offsets, offsets).map(lambda pair: (min(pair), max(pair)))


def both(added: list[tuple[int, int]]) -> tuple[Intervals, set[int]]:
    intervals, model = Intervals(), set[int]()
    for start, stop in added:
        intervals.add(start, stop)
        model.update(range(start, stop))
    return intervals, model


@given(st.lists(pairs, max_size=20))
def test_the_runs_are_the_model_sorted_and_apart(added: list[tuple[int, int]]) -> None:
    intervals, model = both(added)
    runs = list(intervals)
    assert {byte for start, stop in runs for byte in range(start, stop)} == model
    assert all(start < stop for start, stop in runs)
    assert all(first[1] < second[0] for first, second in pairwise(runs))
    assert len(intervals) == len(runs)


@given(st.lists(pairs, max_size=20))
def test_the_total_is_the_models_size(added: list[tuple[int, int]]) -> None:
    intervals, model = both(added)
    assert intervals.total == len(model)


@given(st.lists(pairs, max_size=12), offsets)
def test_covered_to_is_where_the_models_run_ends(added: list[tuple[int, int]], offset: int) -> None:
    intervals, model = both(added)
    end = offset
    while end in model:
        end += 1
    assert intervals.covered_to(offset) == end


@given(st.lists(pairs, max_size=12), pairs)
def test_contains_is_the_models_superset(added: list[tuple[int, int]], pair: tuple[int, int]) -> None:
    intervals, model = both(added)
    assert intervals.contains(*pair) == model.issuperset(range(*pair))


@given(st.lists(pairs, max_size=12), pairs)
def test_gaps_are_the_models_complement(added: list[tuple[int, int]], pair: tuple[int, int]) -> None:
    intervals, model = both(added)
    gaps = intervals.gaps(*pair)
    assert {byte for start, stop in gaps for byte in range(start, stop)} == set(range(*pair)) - model
    assert gaps == sorted(gaps)
    assert all(start < stop for start, stop in gaps)


def test_a_sequential_download_is_one_run() -> None:
    intervals = Intervals()
    for start in range(0, 10_000, 10):
        intervals.add(start, start + 10)
    assert list(intervals) == [(0, 10_000)]


def test_nothing_is_in_a_fresh_set() -> None:
    assert list(Intervals()) == []
    assert Intervals().total == 0
    assert Intervals().covered_to(5) == 5
    assert Intervals().gaps(2, 9) == [(2, 9)]
