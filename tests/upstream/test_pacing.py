"""An upstream is asked as fast as it lets us, and left alone when it fails."""

from __future__ import annotations

from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from trio.testing import MockClock

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.pacing import (
    FAILURES,
    LONGEST_PAUSE,
    OPEN_SECONDS,
    Backoff,
    Breaker,
    Lane,
    Pace,
    Paces,
    RateLimit,
    parse_ratelimit,
    parse_retry_after,
)

NOW = 1_700_000_000.0


# Headers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("61", LONGEST_PAUSE),
        ("1671632063", LONGEST_PAUSE),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        (formatdate(NOW + 9999, usegmt=True), LONGEST_PAUSE),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("١٢", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_long(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_is_longer_than_the_cap(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_PAUSE


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "98;w=21600"}, RateLimit(100, 98)),
        ({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0"}, RateLimit(60, 0)),
        ({"ratelimit-limit": "10, 10;w=1, 50;w=60"}, RateLimit(10, None)),
        ({"ratelimit-remaining": "many"}, RateLimit(None, None)),
        ({}, RateLimit(None, None)),
    ],
)
def test_rate_limits_are_read_in_all_their_spellings(headers: dict[str, str], expected: RateLimit) -> None:
    assert parse_ratelimit(headers) == expected


# The back-off, pure


def test_backoff_lasts_as_long_as_was_asked() -> None:
    assert Backoff().throttled(7.0, 100.0).until == 107.0


def test_backoff_without_a_time_doubles_up_to_the_cap() -> None:
    backoff, now, pauses = Backoff(), 0.0, []
    for _ in range(9):
        backoff = backoff.throttled(None, now)
        pauses.append(backoff.until - now)
        now = backoff.until
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_answers_to_requests_sent_before_the_pause_do_not_double_it() -> None:
    first = Backoff().throttled(None, 0.0)
    assert first.throttled(None, 0.5) == first
    assert first.passed(0.5) == first


def test_success_after_the_pause_ends_the_doubling() -> None:
    backoff = Backoff().throttled(None, 0.0).passed(1.0)
    assert backoff.throttled(None, 5.0).until == 6.0


@given(st.lists(st.tuples(st.none() | st.floats(0, LONGEST_PAUSE), st.floats(0, 100)), max_size=20))
def test_no_pause_is_longer_than_the_cap(answers: list[tuple[float | None, float]]) -> None:
    backoff, now = Backoff(), 0.0
    for retry_after, passed in answers:
        now += passed
        backoff = backoff.throttled(retry_after, now)
        assert backoff.until <= now + LONGEST_PAUSE


# The breaker, pure


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker = breaker.failed(Cause.CONNECT, now, probe=False)
    return breaker


def test_breaker_opens_at_the_last_of_its_failures() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker = breaker.failed(Cause.TIMEOUT, 0.0, probe=False)
        assert breaker.lets_pass(0.0)
    breaker = breaker.failed(Cause.TIMEOUT, 0.0, probe=False)
    assert (breaker.lets_pass(OPEN_SECONDS - 0.1), breaker.because) == (False, Cause.TIMEOUT)


def test_breaker_lets_one_probe_pass() -> None:
    probing = opened().entered()
    assert opened().lets_pass(OPEN_SECONDS)
    assert not probing.lets_pass(OPEN_SECONDS)


def test_failed_probe_keeps_it_open() -> None:
    reopened = opened().entered().failed(Cause.DNS, 11.0, probe=True)
    assert not reopened.lets_pass(11.0 + OPEN_SECONDS - 0.1)
    assert reopened.lets_pass(11.0 + OPEN_SECONDS)


def test_probe_that_was_abandoned_makes_room_for_another() -> None:
    assert opened().entered().left(probe=True).lets_pass(OPEN_SECONDS)
    assert not opened().entered().left(probe=False).lets_pass(OPEN_SECONDS)


def test_late_failures_of_others_do_not_prolong_it() -> None:
    assert opened().failed(Cause.SERVER, 9.0, probe=False) == opened()


@given(st.lists(st.tuples(st.sampled_from(["fail", "pass", "leave"]), st.floats(0, 6)), max_size=40))
def test_breaker_never_keeps_everybody_away_for_longer_than_its_time(script: list[tuple[str, float]]) -> None:
    """Whatever happens, whoever waits for OPEN_SECONDS is let pass once no probe is under way."""
    breaker, now = Breaker(), 0.0
    for event, passed in script:
        now += passed
        if not breaker.lets_pass(now):
            assert breaker.lets_pass(now + OPEN_SECONDS)
            continue
        breaker = breaker.entered()
        if event == "fail":
            breaker = breaker.failed(Cause.CONNECT, now, probe=breaker.probing)
        elif event == "leave":
            breaker = breaker.left(probe=breaker.probing)
        else:
            breaker = Breaker()


# The shell


def fail(pace: Pace, cause: Cause = Cause.CONNECT, times: int = FAILURES) -> None:
    for _ in range(times):
        pace.failed(Lane.CONTROL, cause, probe=pace.enter(Lane.CONTROL))


async def test_throttled_lane_fails_at_once_and_says_how_long(mock_clock: MockClock) -> None:
    pace = Pace("hub", "h")
    pace.answered(Lane.CONTROL, throttled=True, retry_after=7.0)
    mock_clock.jump(2)
    with pytest.raises(UpstreamError) as caught:
        pace.enter(Lane.CONTROL)
    assert (caught.value.cause, caught.value.retry_after, caught.value.status) == (Cause.THROTTLED, 5.0, 429)
    assert pace.enter(Lane.BLOB) is False, "the layers of a pull that is under way go on"
    mock_clock.jump(5)
    assert pace.enter(Lane.CONTROL) is False


async def test_open_breaker_refuses_with_the_cause_that_opened_it(mock_clock: MockClock) -> None:
    pace = Pace("hub", "h")
    fail(pace, Cause.TIMEOUT)
    mock_clock.jump(4)
    with pytest.raises(UpstreamError) as caught:
        pace.enter(Lane.BLOB)
    error = caught.value
    assert (error.cause, error.because, error.retry_after) == (Cause.BREAKER, Cause.TIMEOUT, 6.0)


async def test_probe_that_is_answered_closes_the_breaker(mock_clock: MockClock) -> None:
    pace = Pace("hub", "h")
    fail(pace)
    mock_clock.jump(OPEN_SECONDS)
    assert pace.enter(Lane.CONTROL) is True
    with pytest.raises(UpstreamError, match="left alone"):
        pace.enter(Lane.CONTROL)
    pace.answered(Lane.CONTROL)
    assert pace.enter(Lane.CONTROL) is False


async def test_any_answer_in_between_starts_the_count_anew() -> None:
    pace = Pace("hub", "h")
    for _ in range(3):
        fail(pace, times=FAILURES - 1)
        pace.answered(Lane.CONTROL)
    assert pace.enter(Lane.CONTROL) is False


@pytest.mark.parametrize(("ill", "well"), [(Lane.BLOB, Lane.CONTROL), (Lane.CONTROL, Lane.BLOB)])
async def test_host_that_answers_one_lane_with_failures_is_left_alone_for_that_one(
    mock_clock: MockClock, ill: Lane, well: Lane
) -> None:
    pace = Pace("hub", "h")
    for _ in range(FAILURES):
        pace.failed(ill, Cause.SERVER, probe=pace.enter(ill))
        assert pace.enter(well) is False
        pace.answered(well)
    with pytest.raises(UpstreamError, match="left alone"):
        pace.enter(ill)
    assert pace.health[1:3] == (True, Cause.SERVER)
    mock_clock.jump(OPEN_SECONDS)
    assert pace.enter(ill) is True
    pace.answered(ill)
    assert pace.health[1:3] == (False, None)


@pytest.mark.parametrize("cause", [Cause.CONNECT, Cause.DNS, Cause.TLS, Cause.TIMEOUT])
async def test_host_that_cannot_be_reached_is_left_alone_for_all_until_it_answers(
    mock_clock: MockClock, cause: Cause
) -> None:
    pace = Pace("hub", "h")
    fail(pace, cause)
    for lane in Lane:
        with pytest.raises(UpstreamError, match="left alone"):
            pace.enter(lane)
    mock_clock.jump(OPEN_SECONDS)
    assert pace.enter(Lane.BLOB) is True
    pace.answered(Lane.BLOB)
    assert pace.enter(Lane.CONTROL) is False


@pytest.mark.parametrize("cause", [Cause.AUTH, Cause.MISSING, Cause.GATE, Cause.PROTOCOL])
async def test_refusals_are_no_failures(cause: Cause) -> None:
    pace = Pace("hub", "h")
    fail(pace, cause, times=FAILURES + 1)
    assert pace.enter(Lane.CONTROL) is False


async def test_gauge_counts_the_hosts_that_are_left_alone() -> None:
    def gauge() -> float | None:
        return REGISTRY.get_sample_value("cacheproxy_upstream_breaker_open", {"upstream": "counted"})

    one, two = Pace("counted", "a"), Pace("counted", "b")
    fail(one)
    fail(two)
    assert gauge() == 2
    one.answered(Lane.CONTROL)
    one.answered(Lane.CONTROL)
    assert gauge() == 1


async def test_an_upstream_that_is_not_asked_any_more_is_not_left_alone_either(
    autojump_clock: MockClock,
) -> None:
    paces = Paces("retired")
    pace = paces.of(httpx.URL("https://retired.example"))
    while not pace.health.open:
        pace.failed(Lane.CONTROL, Cause.SERVER, probe=False)
    labels = {"upstream": "retired"}
    assert REGISTRY.get_sample_value("cacheproxy_upstream_breaker_open", labels) == 1
    paces.retire()
    assert REGISTRY.get_sample_value("cacheproxy_upstream_breaker_open", labels) == 0
