"""What the edge counts by itself. Requests are counted by whoever gets the log's Exchange."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

CONNECTIONS = Gauge("cacheproxy_connections", "Client connections that are open now.")
REFUSED = Counter(
    "cacheproxy_connections_refused_total",
    "Connections answered with 503 at once, by which limit was reached.",
    ["limit"],
)
CUT = Counter(
    "cacheproxy_connections_cut_total",
    "Connections that a deadline ended, by which: handshake, header, idle, slow, client, lingered.",
    ["why"],
)
HANDSHAKES_FAILED = Counter(
    "cacheproxy_tls_handshakes_failed_total",
    "TLS handshakes that came to no agreement; the log has the reasons at level debug.",
)
CERTIFICATE_EXPIRES = Gauge(
    "cacheproxy_tls_certificate_expires_timestamp_seconds",
    "When the certificate that clients are shown expires; 0: none is shown.",
)
