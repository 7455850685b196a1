"""Where a redirect may lead, and what is told to whom it leads (RFC 9110 section 15.4).

Blobs are redirected to object stores as a rule, with a signature in the query that is good for minutes: a
redirect is followed each time anew, kept nowhere, and its query is shown to nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import httpx

from cacheproxy.core.failures import Cause, UpstreamError

STATUSES = frozenset({301, 302, 303, 307, 308})
"""All are followed with the same method: we only ever read."""

HOPS = 5
"""Real chains have one or two."""

LONGEST = 8 << 10
"""Characters of a Location. Presigned ones have about 2 000."""

TOLD_TO_STRANGERS = frozenset({"accept", "accept-encoding", "user-agent", "range", "if-range"})
"""What another origin hears of a request: what it needs to answer, and nothing that says who asks."""

_PORTS = {"https": 443, "http": 80}

Place = tuple[str, str, int]
"""Scheme, host and port: what RFC 9110 section 4.3.1 calls an origin."""


def place(url: httpx.URL) -> Place:
    return url.scheme, url.raw_host.decode("ascii").lower(), url.port or _PORTS.get(url.scheme, 0)


def next_hop(
    url: httpx.URL, location: str | None, visited: Collection[httpx.URL], upstream: str
) -> httpx.URL:
    """The URL that `location` names at `url`; `visited` are all before it, `url` among them.

    Raises UpstreamError: GATE for where we do not go, PROTOCOL for what leads nowhere.
    """
    if len(visited) > HOPS:
        raise UpstreamError(Cause.PROTOCOL, f"redirects more than {HOPS} times", upstream)
    target = _resolved(url, location, upstream)
    if target in visited:
        raise UpstreamError(Cause.PROTOCOL, "redirects in a circle", upstream)
    if target.scheme not in _PORTS or target.userinfo or not target.host or place(target)[2] > 65535:
        raise UpstreamError(Cause.GATE, "redirects to what is not a plain http or https URL", upstream)
    if url.scheme == "https" and target.scheme != "https":
        raise UpstreamError(Cause.GATE, f"redirects from https to http ({target.host})", upstream)
    return target


def for_strangers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The header set for an origin that is not the upstream's own: a new one, from what it may know."""
    return [(name, value) for name, value in headers if name.lower() in TOLD_TO_STRANGERS]


def _resolved(url: httpx.URL, location: str | None, upstream: str) -> httpx.URL:
    if location is None:
        raise UpstreamError(Cause.PROTOCOL, "redirects without a Location", upstream)
    if len(location) > LONGEST:
        raise UpstreamError(Cause.PROTOCOL, f"redirects to a URL of more than {LONGEST} characters", upstream)
    try:
        return url.join(location).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise UpstreamError(Cause.PROTOCOL, "redirects to what is not a URL", upstream) from None
