"""When a tag is served, asked for again, or served although the upstream fails."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.freshness import (
    Fetch,
    FreshRule,
    Revalidate,
    Serve,
    StaleRule,
    TagState,
    decide,
    lifetime,
    may_serve_stale,
)
from cacheproxy.core.patterns import Patterns

OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
RULES = (
    FreshRule(Patterns("latest"), 300),
    FreshRule(Patterns("v*"), math.inf),
    FreshRule(Patterns("*"), 3600),
)
STALE = StaleRule(1000, frozenset({Cause.SERVER, Cause.DNS}))

times = st.floats(0, 1e10)
lifetimes = st.one_of(st.floats(0, 1e8), st.just(math.inf))


@pytest.mark.parametrize(("tag", "seconds"), [("latest", 300), ("v1", math.inf), ("stable", 3600)])
def test_the_first_rule_that_matches_gives_the_lifetime(tag: str, seconds: float) -> None:
    assert lifetime(RULES, tag) == seconds


def test_a_tag_without_a_rule_is_never_fresh() -> None:
    assert lifetime(RULES[:1], "v1") == 0
    assert decide(TagState(OLD, 100), 0, 100) == Revalidate()


def test_an_unknown_tag_is_fetched() -> None:
    assert decide(None, math.inf, 0) == Fetch()


@pytest.mark.parametrize(
    ("now", "decision"),
    [
        (100, Serve(160)),
        (159.9, Serve(160)),
        (160, Revalidate()),
        (1e9, Revalidate()),
        (99.9, Revalidate()),
        (-1e9, Revalidate()),
    ],
)
def test_a_tag_is_fresh_from_its_check_for_its_lifetime(now: float, decision: Serve | Revalidate) -> None:
    assert decide(TagState(OLD, 100), 60, now) == decision


def test_forever_is_for_ever() -> None:
    assert decide(TagState(OLD, 100), math.inf, 1e12) == Serve(math.inf)


@given(times, lifetimes, times)
def test_a_tag_whose_image_moved_is_fetched_however_fresh(checked: float, seconds: float, now: float) -> None:
    assert decide(TagState(OLD, checked, pending=NEW), seconds, now) == Fetch()


@given(times, lifetimes, times, times)
def test_what_is_not_fresh_does_not_become_so_by_waiting(
    checked: float, seconds: float, now: float, later: float
) -> None:
    now, later = sorted((now, later))
    state = TagState(OLD, checked)
    if now >= checked and decide(state, seconds, now) == Revalidate():
        assert decide(state, seconds, later) == Revalidate()


@given(times, lifetimes, lifetimes, times)
def test_a_longer_lifetime_never_serves_less(checked: float, one: float, other: float, now: float) -> None:
    shorter, longer = sorted((one, other))
    state = TagState(OLD, checked)
    if isinstance(decide(state, shorter, now), Serve):
        assert isinstance(decide(state, longer, now), Serve)


@given(times, lifetimes, times)
def test_what_is_served_is_good_beyond_now(checked: float, seconds: float, now: float) -> None:
    decision = decide(TagState(OLD, checked), seconds, now)
    if isinstance(decision, Serve):
        assert decision.until >= now


def failure(cause: Cause, because: Cause | None = None) -> UpstreamError:
    return UpstreamError(cause, "failed", "hub", because=because)


@pytest.mark.parametrize("cause", Cause)
def test_stale_is_served_for_the_rules_causes_only(cause: Cause) -> None:
    assert may_serve_stale(TagState(OLD, 5000), STALE, failure(cause), 5010) == (cause in STALE.causes)


@pytest.mark.parametrize(("now", "may"), [(5000, True), (6000, True), (6000.1, False)])
def test_stale_is_served_for_the_rules_time(now: float, may: bool) -> None:
    assert may_serve_stale(TagState(OLD, 5000), STALE, failure(Cause.DNS), now) is may


@pytest.mark.parametrize(("because", "may"), [(Cause.DNS, True), (Cause.CONNECT, False)])
def test_an_open_breaker_counts_as_what_opened_it(because: Cause, may: bool) -> None:
    assert may_serve_stale(TagState(OLD, 5000), STALE, failure(Cause.BREAKER, because), 5010) is may


def test_the_image_that_is_here_stands_in_for_one_that_moved() -> None:
    assert may_serve_stale(TagState(OLD, 5000, pending=NEW), STALE, failure(Cause.SERVER), 5010)
