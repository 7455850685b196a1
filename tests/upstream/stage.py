"""A registry client before scripted origins on loopback, or before a function that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from cacheproxy.upstream.registry import Registry
from cacheproxy.upstream.settings import UpstreamSettings
from cacheproxy.upstream.transport import OwnedTransport
from tests.origin import Origin
from tests.upstream.servers import dialer

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


def settings(*urls: str, **changes: Any) -> UpstreamSettings:
    """The upstream's URL, then those of its mirrors."""
    return UpstreamSettings("hub", "registry.example", urls[0], mirrors=urls[1:], **changes)


@asynccontextmanager
async def registry(*origins: Origin | str, **changes: Any) -> AsyncIterator[Registry]:
    urls = [origin if isinstance(origin, str) else origin.url for origin in origins]
    async with OwnedTransport(dialer()) as transport, trio.open_nursery() as nursery:
        yield Registry(settings(*urls, **changes), transport, nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(answer: Handler, *urls: str, **changes: Any) -> AsyncIterator[Registry]:
    """Nothing is sent: `answer` gets each request. Good for a virtual clock."""
    async with trio.open_nursery() as nursery:
        transport = httpx.MockTransport(answer)  # type: ignore[arg-type]
        yield Registry(settings(*(urls or ("https://registry.example",)), **changes), transport, nursery)
        nursery.cancel_scope.cancel()
