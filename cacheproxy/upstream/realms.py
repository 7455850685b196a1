"""Where a token may be fetched: the realm of a challenge is a stranger's word, and our password goes there.

Pull-through caches have been made to send it to whoever ran the upstream, or to an address inside
(CVE-2026-33540, CVE-2026-48978). So a realm is at the host that challenges, port included, or at one the
operator lists.
"""

from __future__ import annotations

from collections.abc import Iterable

import httpx

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.redirects import place

LONGEST = 2 << 10
"""Characters of a realm. Real ones have under 100."""


class Realms:
    """For the challenges of one endpoint."""

    def __init__(self, endpoint: httpx.URL, hosts: Iterable[str], upstream: str) -> None:
        """`hosts` are "host" (at its scheme's port) or "host:port"."""
        self._endpoint = endpoint
        self._hosts = frozenset(host.lower() for host in hosts)
        self._upstream = upstream

    def check(self, realm: str) -> httpx.URL:
        """The realm as a URL. Raises UpstreamError GATE."""
        try:
            url = httpx.URL(realm) if len(realm) <= LONGEST and realm.isascii() else None
        except (httpx.InvalidURL, ValueError):
            url = None
        if url is None or url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.fragment:
            raise self._refused("is not a plain http or https URL")
        if self._endpoint.scheme == "https" and url.scheme != "https":
            raise self._refused("is http where the upstream is https")
        if not self._is_allowed(url):
            raise self._refused(f"is at {url.netloc.decode()[:100]}, which is not among its token_hosts")
        return url

    def _is_allowed(self, url: httpx.URL) -> bool:
        _, host, port = place(url)
        if (host, port) == place(self._endpoint)[1:]:
            return True
        at_usual_port = port == {"https": 443, "http": 80}[url.scheme]
        return f"{host}:{port}" in self._hosts or (at_usual_port and host in self._hosts)

    def _refused(self, what: str) -> UpstreamError:
        return UpstreamError(Cause.GATE, f"names a token realm that {what}", self._upstream)
