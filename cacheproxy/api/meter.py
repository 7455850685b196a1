"""What clients were told, counted: by outcome, and in bytes."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from cacheproxy.edge.message import Exchange

REQUESTS = Counter(
    "cacheproxy_requests",
    "Finished requests, by the upstream they meant, their outcome and their status",
    ["upstream", "outcome", "code"],
)
SERVED = Counter("cacheproxy_served_bytes", "Body bytes sent to clients", ["upstream", "outcome"])
ABORTED = Counter("cacheproxy_aborted", "Answers that were cut short, by who or what cut them", ["by"])
SECONDS = Histogram(
    "cacheproxy_request_seconds",
    "Time from the first byte of a request to the last of its answer",
    ["outcome"],
)


def outcomes() -> dict[str, dict[str, int]]:
    """Finished requests since the start, by upstream and outcome; "" for what is neither."""
    found: dict[str, dict[str, int]] = {}
    for family in REQUESTS.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                counted = found.setdefault(sample.labels["upstream"], {})
                outcome = sample.labels["outcome"]
                counted[outcome] = counted.get(outcome, 0) + int(sample.value)
    return found


class Meter:
    """Counts one exchange; the labelled counters are looked up once a combination."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._served: dict[tuple[str, str], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def count(self, exchange: Exchange) -> None:
        key = (exchange.upstream, exchange.outcome, exchange.status)
        requests = self._requests.get(key)
        if requests is None:
            requests = self._requests[key] = REQUESTS.labels(key[0], key[1], str(key[2]))
            self._served[key[:2]] = SERVED.labels(*key[:2])
            self._seconds[exchange.outcome] = SECONDS.labels(exchange.outcome)
        requests.inc()
        if exchange.sent:
            self._served[key[:2]].inc(exchange.sent)
        exemplar = {"trace_id": exchange.trace} if exchange.trace else None
        self._seconds[exchange.outcome].observe(exchange.seconds, exemplar)
        if exchange.aborted:
            ABORTED.labels(exchange.aborted).inc()
