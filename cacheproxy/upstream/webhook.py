"""A webhook's receiver: one POST, and what it says. Nothing is tried twice here, and no redirect followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import httpx
import trio

from cacheproxy.upstream.causes import cause_of
from cacheproxy.upstream.pacing import parse_retry_after

SECONDS = 10.0
"""For one try, from the dialling to the status: who works longer than that does it after the answer."""

IDLE = 4.0
"""Seconds that a connection waits for the next event: less than the 5 s after which common servers close."""

MOST_READ = 64 << 10
"""Bytes of an answer that are read, so that its connection can be used again; nobody looks at them."""

READ_SECONDS = 1.0


class Unreached(Exception):
    """There was no answer; the message says why, and names neither address nor secret."""


class Answer(NamedTuple):
    status: int
    retry_after: float | None
    """Seconds, if it says so."""


class Receiver:
    def __init__(
        self, url: str, transport: httpx.AsyncBaseTransport, clock: Callable[[], float], user_agent: str
    ) -> None:
        self._url = url
        self._transport = transport
        self._clock = clock
        self._user_agent = user_agent

    async def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Raises Unreached."""
        fixed = [("User-Agent", self._user_agent), ("Accept-Encoding", "identity")]
        limits = dict.fromkeys(("connect", "read", "write"), SECONDS)
        try:
            request = httpx.Request(
                "POST",
                self._url,
                headers=[*fixed, *headers],
                content=body,
                extensions={"timeout": limits},
            )
            with trio.fail_after(SECONDS):
                response = await self._transport.handle_async_request(request)
        except trio.TooSlowError as error:
            raise Unreached(f"no answer within {SECONDS:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreached(f"{cause_of(error)}: {error}") from error
        async with aclosing(response):
            await _drained(response)
        return Answer(
            response.status_code, parse_retry_after(response.headers.get("retry-after"), self._clock())
        )


async def _drained(response: httpx.Response) -> None:
    read = 0
    assert isinstance(response.stream, httpx.AsyncByteStream)
    with trio.move_on_after(READ_SECONDS):
        try:
            async for part in response.stream:
                read += len(part)
                if read > MOST_READ:
                    return
        except httpx.HTTPError:
            return  # the status is what counts
