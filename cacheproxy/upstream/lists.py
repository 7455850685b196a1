"""Lists that come in pages: tags, and referrers.

A page's Link names the next one. Only its query is used, at the endpoint that is asked anyway: what host it
names may be a stranger's, or one that is known behind the registry's own proxy only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
import msgspec
import structlog
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.listing import next_link
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.name import is_tag
from cacheproxy.upstream.asking import Answer, Call
from cacheproxy.upstream.mirrors import Mirrors

log = structlog.get_logger()

PAGES = 200
ITEMS = 100_000
"""Where an endless list ends."""

SECONDS = 300.0
"""For all pages together."""

LARGEST_PAGE = 16 << 20
"""Bytes. Google's registries describe every manifest of the repository beside its tags, without paging."""

LONGEST_QUERY = 2 << 10

PER_PAGE = 1000
"""Tags asked for at once: what clients ask for, and registries allow at most."""

_NO_API = frozenset({400, 404, 405, 501})
"""How registries without the referrers API answer."""

Deadline = Callable[[], float]


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Index(msgspec.Struct):
    manifests: list[dict[str, Any]]


class _Page(NamedTuple):
    items: list[Any] | None
    """None: the answer was no such list."""
    next: str | None
    """The query of the next page."""


async def tags(mirrors: Mirrors, call: Call, deadline: Deadline) -> list[str]:
    """What is not a tag by the specification is left out: nobody could pull it."""
    listed = await _all(mirrors, call, f"n={PER_PAGE}", _read_tags, deadline)
    return [tag for tag in listed or () if is_tag(tag)]


async def referrers(mirrors: Mirrors, call: Call, deadline: Deadline) -> list[dict[str, Any]] | None:
    """None: there is no referrers API."""
    return await _all(mirrors, replace(call, accepts=call.accepts | _NO_API), "", _read_referrers, deadline)


async def _all(
    mirrors: Mirrors,
    call: Call,
    query: str,
    read: Callable[[Answer], Awaitable[list[Any] | None]],
    deadline: Deadline,
) -> list[Any] | None:
    """Every page, each with a deadline of its own as long as there is time for all."""

    async def page(answer: Answer) -> _Page:
        return _Page(await read(answer), _next_query(answer))

    items: list[Any] = []
    seen, latest = {query}, trio.current_time() + SECONDS
    for _ in range(PAGES):
        target = f"{call.target}?{query}" if query else call.target
        asked = replace(call, target=target, deadline=min(deadline(), latest))
        found = await mirrors.ask(asked, page)
        if found.items is None:
            return items or None
        items += found.items
        if found.next is None:
            return items
        if found.next in seen or len(items) >= ITEMS:
            break
        query = found.next
        seen.add(query)
    log.warning("endless list cut", path=call.target, items=len(items))
    return items[:ITEMS]


async def _read_tags(answer: Answer) -> list[str]:
    body = await answer.read(LARGEST_PAGE)
    try:
        return msgspec.json.decode(body, type=_Tags).tags or []
    except (msgspec.DecodeError, RecursionError):
        raise UpstreamError(Cause.PROTOCOL, "sends no list of tags", answer.upstream) from None


async def _read_referrers(answer: Answer) -> list[dict[str, Any]] | None:
    """A registry without the API may answer with a page for people instead of a 404."""
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status != 200 or media_type not in {OCI_INDEX, "application/json"}:
        return None
    body = await answer.read(LARGEST_PAGE)
    try:
        return msgspec.json.decode(body, type=_Index).manifests
    except (msgspec.DecodeError, RecursionError):
        return None


def _next_query(answer: Answer) -> str | None:
    link = next_link(answer.headers.get("link", ""))
    try:
        query = httpx.URL(link or "").query.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        return None
    return query if 0 < len(query) <= LONGEST_QUERY else None
