"""The rule that says of a number whether it is good enough."""

from __future__ import annotations

import pytest

from bench.bars import BARS, Bar, Kind, judge
from bench.lines import LINES

MOST = Bar("blob-1", "cpu", "at most 0.7 of it", Kind.RATIO, 0.7, reference=("blob-1", "distribution"))
LEAST = Bar("blob-1", "rate", "at least twice", Kind.RATIO, 2, True, ("blob-1", "distribution"))
EXCESS = Bar("cold-one", "first", "at most 20 more", Kind.EXCESS, 20, reference=("cold-one", "direct"))
VALUE = Bar("fan-out", "failures", "none", Kind.VALUE, 0)


@pytest.mark.parametrize(
    ("bar", "value", "reference", "reached"),
    [
        (MOST, 0.7, 1.0, True),
        (MOST, 0.71, 1.0, False),
        (LEAST, 4.0, 2.0, True),
        (LEAST, 3.9, 2.0, False),
        (EXCESS, 21.0, 1.0, True),
        (EXCESS, 21.5, 1.0, False),
    ],
)
def test_limit_itself_is_good(bar: Bar, value: float, reference: float, reached: bool) -> None:
    assert bar.reference is not None
    medians = {(bar.line, "ours"): {bar.key: value}, bar.reference: {bar.key: reference}}
    verdict = judge(bar, medians)
    assert verdict is not None
    assert verdict.reached is reached


def test_value_needs_no_reference() -> None:
    verdict = judge(VALUE, {("fan-out", "ours"): {"failures": 1.0}})
    assert verdict is not None
    assert (verdict.shown, verdict.reached) == (1.0, False)


@pytest.mark.parametrize("measured", [("blob-1", "ours"), ("blob-1", "distribution")])
def test_half_a_comparison_is_no_verdict(measured: tuple[str, str]) -> None:
    assert judge(MOST, {measured: {"cpu": 1.0}}) is None


def test_other_server_may_be_the_subject() -> None:
    bar = Bar("cold-one", "upstream", "once", Kind.VALUE, 1, subject="single")
    assert judge(bar, {("cold-one", "ours"): {"upstream": 2.0}}) is None
    assert judge(bar, {("cold-one", "single"): {"upstream": 1.0}}) is not None


@pytest.mark.parametrize("bar", BARS)
def test_every_bar_is_about_something_that_is_measured(bar: Bar) -> None:
    for line, server in filter(None, ((bar.line, bar.subject), bar.reference)):
        assert server in LINES[line].peers
        assert bar.key in {column.key for column in LINES[line].columns}
