"""The plainest requests, parsed in one step: a GET or HEAD without a body that came whole in one read.

Nine of ten requests to a cache are like this, and a general parser costs three times as much. What is
accepted here is a strict subset of what `slowpath` accepts, with the same meaning; anything else is None,
and the same bytes go there. So the two cannot disagree about where a request ends. A test mutates requests
to keep it so.
"""

from __future__ import annotations

import re

from cacheproxy.edge import grammar

_MOST = 4096
"""Longer heads are rare enough to take the slow way."""

# Header values: visible ASCII with inner blanks. No empty value, no trailing blank, no obs-text, no obs-fold.
_head = re.compile(
    r"(GET|HEAD) (/[!-\"$-~]{0,2047}) HTTP/1\.1\r\n"
    r"((?:[A-Za-z0-9-]{1,64}:[ \t]*[!-~](?:[ -~\t]*[!-~])?\r\n){1,32})\r\n"
).fullmatch
_fields = re.compile(r"([A-Za-z0-9-]+):[ \t]*([^\r]+)\r\n").findall

_NOT_PLAIN = frozenset(
    ("connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Fields that frame a body or speak about the connection."""


def parse(data: bytes) -> tuple[str, str, dict[str, str]] | None:
    """(method, target, headers by lower-case name) when `data` is exactly one plain request, else None."""
    if len(data) > _MOST or not data.isascii():
        return None
    match = _head(data.decode("ascii"))
    if match is None:
        return None
    method, target, block = match.groups()
    fields = _fields(block)
    headers = {name.lower(): value for name, value in fields}
    if len(headers) != len(fields) and not _only_accepts_repeat(headers, fields):
        return None
    if not (_NOT_PLAIN.isdisjoint(headers) or _only_keep_alive(headers)):
        return None
    if "host" not in headers or grammar.host(headers["host"]) is None:
        return None
    return method, target, headers


def _only_accepts_repeat(headers: dict[str, str], fields: list[tuple[str, str]]) -> bool:
    """docker and podman name each media type in a field of its own. Any other repeated field, even one that
    may be repeated, is the slow path's business."""
    accepts = [value for name, value in fields if name.lower() == "accept"]
    headers["accept"] = ", ".join(accepts)
    return len(headers) - 1 + len(accepts) == len(fields)


def _only_keep_alive(headers: dict[str, str]) -> bool:
    """`Connection: keep-alive`, which 1.1 means anyway: httpx and Java's clients always send it."""
    return headers.get("connection", "").lower() == "keep-alive" and len(_NOT_PLAIN & headers.keys()) == 1
