"""What the use cases count."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

FILLS = Counter("cacheproxy_fills", "Ended fills, by how they ended", ["result"])
FILLS_RUNNING = Gauge("cacheproxy_fills_running", "Fills that are running")
UNCACHED = Counter(
    "cacheproxy_uncached",
    "Blobs served straight from the upstream because they could not be cached",
    ["reason"],
)
STALE = Counter(
    "cacheproxy_stale_served",
    "Answers served stale because the upstream failed, by cause",
    ["upstream", "cause"],
)
