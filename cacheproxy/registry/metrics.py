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
EVICTED_BLOBS = Counter(
    "cacheproxy_evicted_blobs", "Blobs whose bytes went, by reason: budget, min_free, keep", ["reason"]
)
EVICTED_BYTES = Counter("cacheproxy_evicted_bytes", "Their bytes", ["reason"])
CACHED_BYTES = Gauge("cacheproxy_cached_bytes", "Bytes stored, unfinished, and promised to running downloads")
BUDGET_BYTES = Gauge("cacheproxy_budget_bytes", "Bytes that may be cached")
OLDEST_USED = Gauge(
    "cacheproxy_oldest_used_timestamp_seconds",
    "When the stored blob that was not read for the longest time was read; 0: nothing is stored",
)
INTEGRITY_FAILURES = Counter(
    "cacheproxy_integrity_failures",
    "Stored blobs that were not what was stored, by what was found: missing, unreadable, truncated, mismatch",
    ["found"],
)
COLLECTED = Counter(
    "cacheproxy_collected", "What no hosted repository had a reason for any more: image, link, blob", ["kind"]
)
COLLECTED_BYTES = Counter("cacheproxy_collected_bytes", "The bytes of such blobs")
COLLECTION_OVERDUE = Gauge("cacheproxy_collection_overdue", "Images and blobs that are due to be looked at")
COLLECTION_OLDEST = Gauge(
    "cacheproxy_collection_oldest_due_timestamp_seconds", "When the first of them was due; 0: none is"
)
COLLECTION_STOPPED = Gauge(
    "cacheproxy_collection_stopped", "1: the last pass stopped, because of a failure, the clock, or its brake"
)
SWEEP_STOPPED = Gauge(
    "cacheproxy_sweep_stopped", "1: so many stored files have no row that the last sweep removed none of them"
)
STALE = Counter(
    "cacheproxy_stale_served",
    "Answers served stale because the upstream failed, by cause",
    ["upstream", "cause"],
)
WEBHOOK_DELIVERIES = Counter(
    "cacheproxy_webhook_deliveries",
    "Tries to deliver an event, by what came of them: taken, refused (this event), away (the receiver), gone",
    ["sink", "result"],
)
WEBHOOK_WAITING = Gauge("cacheproxy_webhook_waiting_events", "Events that wait to be delivered", ["sink"])
WEBHOOK_OLDEST = Gauge(
    "cacheproxy_webhook_oldest_event_timestamp_seconds",
    "When the first of them was noted; 0: none waits",
    ["sink"],
)
WEBHOOK_DEAD = Gauge(
    "cacheproxy_webhook_dead_events", "Events that were given up and can be replayed", ["sink"]
)
WEBHOOK_LOST = Counter(
    "cacheproxy_webhook_lost_events",
    "Events that waited too long or were too many (given_up), and those of them that went for good (dropped)",
    ["sink", "result"],
)
