"""HTTP/1.1 in: listeners, strict parsing, limits, sending bodies. Knows no OCI."""
