"""Who began what several requests wait for."""

from __future__ import annotations

from functools import partial as bind

import structlog
import trio
import trio.testing

from cacheproxy.registry import sharing
from cacheproxy.registry.flights import Flights


async def test_who_joins_a_flight_hears_once_whose_it_is() -> None:
    heard: dict[str, list[str]] = {}
    async with trio.open_nursery() as nursery:
        flights: Flights[None] = Flights(nursery)

        async def ask(request: str) -> None:
            with structlog.contextvars.bound_contextvars(request=request):
                await flights.share("key", bind(trio.sleep, 0.01))
                heard[request] = [sharing.take(), sharing.take()]

        for request in ("r1", "r2", "r3"):
            nursery.start_soon(ask, request)
            await trio.testing.wait_all_tasks_blocked()
    assert heard == {"r1": ["", ""], "r2": ["r1", ""], "r3": ["r1", ""]}


async def test_what_no_request_began_is_nobodys() -> None:
    sharing.begun(None).join()
    assert sharing.take() == ""
