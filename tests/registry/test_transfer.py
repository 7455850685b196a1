from __future__ import annotations

import pytest

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.transfer import BACKOFF, PATIENCE_WITH_LIMITS, Route, Source
from tests.registry.fakes import FakeUpstream

HUB = Source(FakeUpstream(b"blob", mirrors=2), "library/debian")
OTHER = Source(FakeUpstream(b"blob", name="other"), "debian")


def error(cause: Cause, retry_after: float | None = None) -> UpstreamError:
    return UpstreamError(cause, "failed", "hub", retry_after=retry_after)


def single() -> Route:
    return Route(OTHER)


def test_the_first_endpoint_is_asked_first() -> None:
    assert Route(HUB).current.endpoint == 0


def test_another_repositorys_endpoints_come_last_and_once() -> None:
    route = Route(HUB)
    route.add(OTHER)
    route.add(OTHER)
    order = []
    for failures in range(1, 4):
        order.append((route.current.source, route.current.endpoint))
        if failures < 3:
            assert route.setback(error(Cause.CONNECT), route.current, failures) == 0
    assert order == [(HUB, 0), (HUB, 1), (OTHER, 0)]


def test_a_lone_endpoint_is_asked_again_after_a_pause() -> None:
    route = single()
    assert BACKOFF[0] / 2 <= route.setback(error(Cause.CONNECT), route.current, 1) <= BACKOFF[0]


def test_three_failures_in_a_row_are_the_end() -> None:
    route = single()
    with pytest.raises(UpstreamError):
        route.setback(error(Cause.CONNECT), route.current, 3)


@pytest.mark.parametrize("cause", [Cause.MISSING, Cause.AUTH, Cause.GATE, Cause.PROTOCOL])
def test_what_asking_again_will_not_change_ends_a_lone_endpoint(cause: Cause) -> None:
    route = single()
    with pytest.raises(UpstreamError):
        route.setback(error(cause), route.current, 1)


def test_an_endpoint_without_the_blob_is_never_asked_again() -> None:
    route = Route(HUB)
    first = route.current
    route.setback(error(Cause.MISSING), first, 1)
    assert route.current.endpoint == 1
    with pytest.raises(UpstreamError):
        route.setback(error(Cause.MISSING), route.current, 1)


def test_two_transfers_that_fail_at_one_endpoint_move_on_once() -> None:
    route = Route(HUB)
    first = route.current
    route.setback(error(Cause.CONNECT), first, 1)
    route.setback(error(Cause.CONNECT), first, 1)
    assert route.current.endpoint == 1


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.BREAKER])
def test_a_limit_before_the_first_byte_is_told(cause: Cause) -> None:
    route = single()
    with pytest.raises(UpstreamError):
        route.setback(error(cause, 5), route.current, 1)


@pytest.mark.parametrize("cause", [Cause.THROTTLED, Cause.BREAKER])
def test_a_limit_in_the_middle_is_waited_for(cause: Cause) -> None:
    route = single()
    route.progress = True
    assert route.setback(error(cause, 5), route.current, 1) == 5
    assert route.setback(error(cause, 600), route.current, 1) == PATIENCE_WITH_LIMITS
    assert route.setback(error(cause), route.current, 1) == 1
