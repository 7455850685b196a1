"""What stands beside a number of the object store was taken right before or after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measures import FULL, QUICK, Run, Scale
from bench.objects import _paired
from bench.origin import Origin


def run(scale: Scale) -> Run:
    return Run(Origin(0, 0), scale, Path())


def test_ratio_is_the_median_of_the_pairs() -> None:
    rates, beside = iter([1.0, 2.0, 3.0, 4.0, 5.0]), iter([10.0, 10.0, 10.0, 5.0, 5.0])
    sample = _paired(run(FULL), lambda: {"rate": next(rates), "failures": 0}, lambda: next(beside))
    assert sample == {"rate": 3.0, "beside": 10.0, "ratio": pytest.approx(0.3), "failures": 0}


def test_pairs_take_turns_at_who_is_first() -> None:
    order: list[str] = []

    def ours() -> dict[str, float]:
        order.append("ours")
        return {"rate": 1.0, "failures": 0}

    def itself() -> float:
        order.append("itself")
        return 1.0

    _paired(run(FULL), ours, itself)
    assert order[:4] == ["ours", "itself", "itself", "ours"]


def test_failures_of_one_pair_are_not_averaged_away() -> None:
    failures = iter([0, 0, 7, 0, 0])
    sample = _paired(run(FULL), lambda: {"rate": 1.0, "failures": next(failures)}, lambda: 1.0)
    assert sample["failures"] == 7


def test_quick_run_is_one_pair() -> None:
    rates = iter([1.0])
    assert _paired(run(QUICK), lambda: {"rate": next(rates), "failures": 0}, lambda: 2.0)["ratio"] == 0.5
