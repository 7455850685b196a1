"""What the origin was asked, and how much it said: the facts that tests and benchmarks count."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

_ROUTES = (
    ("ping", re.compile(r"/v2/?")),
    ("catalog", re.compile(r"/v2/_catalog")),
    ("manifest", re.compile(r"/v2/(?P<repo>.+)/manifests/(?P<reference>[^/]+)")),
    ("blob", re.compile(r"/v2/(?P<repo>.+)/blobs/(?P<reference>[^/]+)")),
    ("tags", re.compile(r"/v2/(?P<repo>.+)/tags/list")),
    ("referrers", re.compile(r"/v2/(?P<repo>.+)/referrers/(?P<reference>[^/]+)")),
    ("token", re.compile(r"/token")),
    ("storage", re.compile(r"/_storage/(?P<reference>[^/]+)")),
    ("control", re.compile(r"/_(seen|reset|set|image)")),
)


@dataclass(slots=True)
class Seen:
    """One request. `status` and `sent` are filled in while it is answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    time: float
    """trio's clock, when the request had been read."""
    connection: int
    """Which of the connections accepted so far, from 1."""
    kind: str = "other"
    """ping, catalog, manifest, blob, tags, referrers, token, storage (a redirected blob), other."""
    repo: str = ""
    reference: str = ""
    status: int = 0
    """0: no status line was sent."""
    sent: int = 0
    """Bytes of the body written so far."""
    body: bytes = field(default=b"", repr=False)
    """The request's own."""

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def carries_blob(self) -> bool:
        return self.kind in {"blob", "storage"} and self.method == "GET" and self.status in {200, 206}

    def as_dict(self) -> dict[str, Any]:
        asked = ("method", "path", "query", "headers", "time", "connection")
        meant = ("kind", "repo", "reference", "range")
        return {name: getattr(self, name) for name in (*asked, *meant, "status", "sent")}


def recognise(method: str, target: str, headers: dict[str, str], time: float, connection: int) -> Seen:
    path, _, query = target.partition("?")
    seen = Seen(method, path, parse_qs(query, keep_blank_values=True), headers, time, connection)
    for kind, pattern in _ROUTES:
        if found := pattern.fullmatch(path):
            named = found.groupdict()
            seen.kind, seen.repo, seen.reference = kind, named.get("repo", ""), named.get("reference", "")
            break
    return seen
