"""What is counted of the traffic to upstreams. No label is anything that a stranger chose."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "cacheproxy_upstream_requests",
    "Requests sent upstream, redirects and repetitions counted each, by kind and by what came of them",
    ["upstream", "kind", "result"],
)
BYTES = Counter("cacheproxy_upstream_bytes", "Body bytes received from upstream", ["upstream"])
FIRST_BYTE = Histogram(
    "cacheproxy_upstream_first_byte_seconds",
    "Time from sending a request upstream to the head of its answer, connecting included",
    ["upstream"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
LAST_SUCCESS = Gauge(
    "cacheproxy_upstream_last_success_timestamp_seconds",
    "When the upstream last answered a request well",
    ["upstream"],
)
TOKEN_REQUESTS = Counter(
    "cacheproxy_upstream_token_requests",
    "Tokens asked for at token servers, by what came of it",
    ["upstream", "result"],
)
BREAKER_OPEN = Gauge(
    "cacheproxy_upstream_breaker_open",
    "Hosts of the upstream that are not asked because they failed too often",
    ["upstream"],
)
RATELIMIT_LIMIT = Gauge(
    "cacheproxy_upstream_ratelimit_limit",
    "Requests that the upstream says it allows in its window",
    ["upstream"],
)
RATELIMIT_REMAINING = Gauge(
    "cacheproxy_upstream_ratelimit_remaining",
    "Requests that the upstream says are left in its window",
    ["upstream"],
)
