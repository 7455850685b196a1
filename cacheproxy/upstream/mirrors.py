"""A control question to an upstream: its endpoints in order, then once more, all within one deadline."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.asking import Answer, Asker, Call, Endpoint

log = structlog.get_logger()

Read = TypeVar("Read")

MOVES_ON = frozenset(
    {
        Cause.CONNECT,
        Cause.DNS,
        Cause.TLS,
        Cause.TIMEOUT,
        Cause.SERVER,
        Cause.THROTTLED,
        Cause.BREAKER,
    }
)
"""What the next endpoint may do better. All else is the upstream's word."""

REPEATED = frozenset({Cause.CONNECT, Cause.SERVER})
"""What may pass in a moment."""

PAUSES = (0.2, 0.8)
"""Seconds before each repetition, halved to whole at random."""

TURN_SECONDS = 10.0
"""An endpoint that has others after it gets at most so long for each head, and half of what is left."""

SLACK = 0.1
"""Seconds by which the outermost limit comes after that of a request, which knows what host was too slow."""


class Mirrors:
    """The endpoints of one upstream, in order."""

    def __init__(self, upstream: str, endpoints: Sequence[Endpoint], asker: Asker) -> None:
        self._upstream = upstream
        self._endpoints = endpoints
        self._asker = asker

    async def ask(self, call: Call, read: Callable[[Answer], Awaitable[Read]]) -> Read:
        """What `read` makes of the first good answer. Raises UpstreamError: the first, if none is good."""
        began = trio.current_time()
        with trio.CancelScope(deadline=call.deadline + SLACK):
            return await self._repeatedly(call, read)
        waited = trio.current_time() - began
        raise UpstreamError(Cause.TIMEOUT, f"no answer in {waited:.1f} s", self._upstream)

    async def _repeatedly(self, call: Call, read: Callable[[Answer], Awaitable[Read]]) -> Read:
        for pause in PAUSES:
            wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            try:
                return await self._in_order(call, read)
            except UpstreamError as error:
                too_late = trio.current_time() + wait >= call.deadline
                if error.cause not in REPEATED or error.retry_after is not None or too_late:
                    raise
            await trio.sleep(wait)
        return await self._in_order(call, read)

    async def _in_order(self, call: Call, read: Callable[[Answer], Awaitable[Read]]) -> Read:
        first: UpstreamError | None = None
        for left, endpoint in zip(range(len(self._endpoints) - 1, -1, -1), self._endpoints, strict=True):
            turn = min(TURN_SECONDS, (call.deadline - trio.current_time()) / 2) if left else math.inf
            try:
                async with self._asker.ask(endpoint, replace(call, turn=turn)) as answer:
                    return await read(answer)
            except UpstreamError as error:
                final = first is None and error.cause not in MOVES_ON
                # What a mirror says it has not got proves nothing while the upstream itself cannot be asked.
                first = first or error
                if final or not left or trio.current_time() >= call.deadline:
                    break
                host = endpoint.url.host
                log.info("next mirror", upstream=self._upstream, failed=host, cause=error.cause)
        assert first is not None, "an upstream has at least one endpoint"
        raise first
