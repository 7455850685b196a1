from __future__ import annotations

from prometheus_client import REGISTRY

from cacheproxy.api.meter import Meter
from cacheproxy.edge.message import Exchange, Peer


def exchange(outcome: str, sent: int = 0, aborted: str = "", upstream: str = "metered") -> Exchange:
    return Exchange(
        Peer(None, "http"),
        "GET",
        "/v2/",
        200,
        sent,
        started=0.0,
        seconds=0.1,
        first_byte=0.1,
        outcome=outcome,
        upstream=upstream,
        aborted=aborted,
    )


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_requests_are_counted_by_outcome() -> None:
    meter = Meter()
    for outcome in ("hit", "hit", "miss", "coalesced", "stale", "negative", "bypass"):
        meter.count(exchange(outcome))
    counted = {
        outcome: value("cacheproxy_requests_total", upstream="metered", outcome=outcome, code="200")
        for outcome in ("hit", "miss", "coalesced", "stale", "negative", "bypass")
    }
    assert counted == {"hit": 2, "miss": 1, "coalesced": 1, "stale": 1, "negative": 1, "bypass": 1}


def test_bytes_are_counted_by_outcome() -> None:
    meter = Meter()
    meter.count(exchange("hit", sent=100, upstream="bytes"))
    meter.count(exchange("hit", sent=23, upstream="bytes"))
    assert value("cacheproxy_served_bytes_total", upstream="bytes", outcome="hit") == 123


def test_cut_answers_are_counted_by_who_cut_them() -> None:
    before = value("cacheproxy_aborted_total", by="source")
    Meter().count(exchange("miss", aborted="source"))
    assert value("cacheproxy_aborted_total", by="source") == before + 1
