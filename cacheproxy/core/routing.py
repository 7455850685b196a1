"""Which repository a request means."""

from __future__ import annotations

from enum import StrEnum


class Via(StrEnum):
    """How a request named its upstream."""

    NS = "ns"
    """The query: `?ns=docker.io`."""
    HOST = "host"
    """A Host of the upstream's own."""
    REGISTRY = "registry"
    """The first path segment: `/v2/docker.io/...`."""
    PREFIX = "prefix"
    """A configured prefix: `/v2/docker-hub/...`."""
    BARE = "bare"
    """Not at all: the default upstream."""
