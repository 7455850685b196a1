"""What a client hears of an upstream's failure."""

from __future__ import annotations

import json

import pytest

from cacheproxy.core.failures import Cause, UpstreamError, to_client
from cacheproxy.core.routing import Via

ALL = tuple(Via)
NAMED = (Via.REGISTRY, Via.PREFIX)
MIRRORED = (Via.NS, Via.HOST, Via.BARE)

ROWS = [
    (Cause.AUTH, ALL, 403, "DENIED"),
    (Cause.MISSING, ALL, 404, "BLOB_UNKNOWN"),
    (Cause.THROTTLED, MIRRORED, 503, "UNAVAILABLE"),
    (Cause.THROTTLED, NAMED, 429, "TOOMANYREQUESTS"),
    (Cause.TIMEOUT, ALL, 504, "UNAVAILABLE"),
    (Cause.SERVER, ALL, 502, "UNAVAILABLE"),
    (Cause.PROTOCOL, ALL, 502, "UNAVAILABLE"),
    (Cause.GATE, ALL, 502, "UNAVAILABLE"),
    (Cause.TLS, ALL, 502, "UNAVAILABLE"),
    (Cause.DNS, ALL, 503, "UNAVAILABLE"),
    (Cause.CONNECT, ALL, 503, "UNAVAILABLE"),
    (Cause.BREAKER, ALL, 503, "UNAVAILABLE"),
]
CELLS = [(cause, via, status, code) for cause, vias, status, code in ROWS for via in vias]


def failure(cause: Cause, retry_after: float | None = None) -> UpstreamError:
    return UpstreamError(cause, "is not well", "hub", status=418, retry_after=retry_after)


@pytest.mark.parametrize(("cause", "via", "status", "code"), CELLS)
def test_a_failure_has_its_answer(cause: Cause, via: Via, status: int, code: str) -> None:
    answer = to_client(failure(cause), via, "BLOB_UNKNOWN")
    assert (answer.status, answer.code) == (status, code)


def test_the_table_has_a_row_for_each_cause_and_way_of_asking() -> None:
    assert {(cause, via) for cause, via, _, _ in CELLS} == {(cause, via) for cause in Cause for via in Via}


@pytest.mark.parametrize("cause", Cause)
def test_no_failure_is_a_bare_500_or_a_challenge(cause: Cause) -> None:
    for via in Via:
        answer = to_client(failure(cause), via)
        assert answer.status not in (401, 500)
        assert "www-authenticate" not in {name.lower() for name, _ in answer.headers}


def test_the_detail_says_which_upstream_which_status_and_why() -> None:
    body = json.loads(to_client(failure(Cause.SERVER), Via.BARE).body("7"))
    assert body["errors"][0]["detail"] == {
        "upstream": "hub",
        "cause": "5xx",
        "status": 418,
        "reason": "is not well",
        "request": "7",
    }
    assert body["errors"][0]["message"] == "upstream hub: is not well"


def test_an_open_breaker_says_what_opened_it() -> None:
    error = UpstreamError(Cause.BREAKER, "failed five times", "hub", because=Cause.DNS)
    detail = to_client(error, Via.BARE).detail
    assert detail is not None
    assert (detail["cause"], detail["because"]) == ("open", "dns")
    assert error.root is Cause.DNS


def test_the_root_of_any_other_failure_is_its_cause() -> None:
    assert failure(Cause.TLS).root is Cause.TLS


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.BREAKER])
@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (7, "7"), (7.01, "8"), (-3.0, "1"), (1e300, "86400")]
)
def test_retry_after_is_in_whole_seconds_within_a_day(cause: Cause, seconds: float, header: str) -> None:
    assert to_client(failure(cause, seconds), Via.NS).headers == (("Retry-After", header),)


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.BREAKER])
def test_who_is_put_off_without_a_time_is_told_one(cause: Cause) -> None:
    ((name, value),) = to_client(failure(cause), Via.PREFIX).headers
    assert name == "Retry-After"
    assert 1 <= int(value) <= 60


@pytest.mark.parametrize("cause", set(Cause) - {Cause.THROTTLED, Cause.BREAKER})
def test_other_failures_name_no_time(cause: Cause) -> None:
    assert to_client(failure(cause, 30), Via.NS).headers == ()


def test_a_failure_reads_well_in_a_log() -> None:
    assert str(failure(Cause.SERVER)) == "hub: is not well (5xx)"
