"""Many clients before an upstream that has had enough: it is left alone, and asked again when it may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.faults.client import Heard
from tests.faults.house import House, Image, house
from tests.origin import faults

MANIFEST = {"kind": "manifest"}
MANY = 40
PAUSE = 60.0
AT_ONCE = 16
"""Control requests to one upstream."""


class Ahead:
    """trio, whose clock may be put forward: nobody waits for a pause to end, or is too slow for it."""

    def __init__(self) -> None:
        self._by = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def current_time(self) -> float:
        return trio.current_time() + self._by

    def put(self, by: float) -> None:
        self._by += by


@contextmanager
def pauses() -> Iterator[Ahead]:
    """They are as long as outside of tests, and nobody but the clock ends them."""
    ahead = Ahead()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cacheproxy.upstream.pacing.OPEN_SECONDS", PAUSE)
        patch.setattr("cacheproxy.upstream.pacing.LONGEST_PAUSE", PAUSE)
        patch.setattr("cacheproxy.upstream.pacing.trio", ahead)
        yield ahead


async def ask_all(h: House, images: list[Image], ns: str = "") -> list[Heard]:
    heard = list[Heard]()

    async def one(image: Image) -> None:
        heard.append(await h.ask(image.manifest_path() + ns))

    async with trio.open_nursery() as nursery:
        for image in images:
            nursery.start_soon(one, image)
    return heard


def images(h: House, name: str) -> list[Image]:
    return [h.image(f"library/{name}-{n}", b"layer") for n in range(MANY)]


async def test_upstream_that_only_fails_is_left_alone_then_tried_with_one_request(folder: Path) -> None:
    async with house(folder) as h:
        with pauses() as clock:
            first, second = images(h, "first"), images(h, "second")
            before = await h.metric("cacheproxy_upstream_breaker_open")  # other tests' upstreams are in it
            h.registry.origin.fault(MANIFEST, faults.status(503))
            assert {heard.status for heard in await ask_all(h, first)} <= {502, 503}
            stormed = h.asked()
            assert stormed <= 2 * AT_ONCE
            for heard in await ask_all(h, second):
                error = heard.error
                assert (heard.status, error["code"]) == (503, "UNAVAILABLE")
                assert (error["detail"]["cause"], error["detail"]["because"]) == ("open", "5xx")
                assert int(heard.headers["retry-after"]) >= 1
            assert h.asked() == stormed
            assert await h.metric("cacheproxy_upstream_breaker_open") == before + 1
            clock.put(PAUSE)
            await ask_all(h, second)
            assert h.asked() == stormed + 1
            await h.heal()
            clock.put(PAUSE)
            await h.pull(first[0])
            assert await h.metric("cacheproxy_upstream_breaker_open") == before
            assert {heard.status for heard in await ask_all(h, first + second)} == {200}


async def test_429_stops_all_requests_for_as_long_as_it_says(folder: Path) -> None:
    async with house(folder) as h:
        with pauses() as clock:
            here, missing = h.image("library/here", b"layer"), images(h, "missing")
            await h.pull(here)
            h.registry.origin.fault(MANIFEST, faults.status(429, {"Retry-After": "60"}))
            asked = h.asked()
            stale = await h.ask(here.manifest_path())
            assert (stale.status, stale.body) == (200, here.manifest)
            assert "(429)" in stale.headers["warning"]
            for heard in await ask_all(h, missing):
                assert (heard.status, heard.error["code"]) == (429, "TOOMANYREQUESTS")
                assert heard.headers["retry-after"]
            for heard in await ask_all(h, missing, ns="?ns=docker.io"):
                assert (heard.status, heard.error["code"]) == (503, "UNAVAILABLE")
                assert heard.headers["retry-after"]
            assert h.asked() == asked + 1
            layer = await h.ask(here.blob_path(here.layers[0]))
            assert layer.status == 200
            await h.heal()
            clock.put(PAUSE)
            assert {heard.status for heard in await ask_all(h, missing)} == {200}
            await h.pull(here)
