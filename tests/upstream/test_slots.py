"""Waiting in line for a slot: nobody else's fault, and not for ever."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.upstream.mirrors import TURN_SECONDS
from cacheproxy.upstream.pacing import CONTROL_SLOTS, SLOT_SECONDS
from cacheproxy.upstream.registry import Registry
from cacheproxy.upstream.tokenserver import SECONDS as TOKEN_SECONDS
from tests.upstream.stage import scripted

A, B = "https://a.example", "https://b.example"
BODY = b"{}"
BLOB = Digest.of(BODY)
GOOD = httpx.Response(200, content=BODY, headers={"Content-Type": OCI_INDEX})


def good() -> httpx.Response:
    return httpx.Response(GOOD.status_code, content=BODY, headers=GOOD.headers)


async def blob(client: Registry) -> bytes:
    async with client.open_blob("a/b", BLOB, endpoint=0) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


async def test_an_endpoints_turn_begins_when_it_is_asked(autojump_clock: MockClock) -> None:
    """A burst is worked off in order: who waited long in line has not waited for the upstream."""
    asked: Counter[str] = Counter()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked[request.url.host] += 1
        await trio.sleep(1)
        return good()

    burst = int(2 * TURN_SECONDS) * CONTROL_SLOTS
    async with scripted(answer, A, B) as client, trio.open_nursery() as nursery:
        for number in range(burst):
            nursery.start_soon(client.get_manifest, "a/b", str(number))
    assert asked == {"a.example": burst}


async def test_waiting_in_line_for_a_token_is_not_the_token_servers_fault(autojump_clock: MockClock) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{A}/token"'}

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if request.url.path == "/token":
            return httpx.Response(200, json={"token": "t"})
        if "/manifests/" in request.url.path:
            await trio.sleep(TOKEN_SECONDS + 5)
            return good()
        return good() if "authorization" in request.headers else httpx.Response(401, headers=challenge)

    async with scripted(answer, A) as client, trio.open_nursery() as nursery:
        for number in range(CONTROL_SLOTS):
            nursery.start_soon(client.get_manifest, "other", str(number))
        await trio.testing.wait_all_tasks_blocked()
        assert await blob(client) == BODY
        nursery.cancel_scope.cancel()


async def test_nobody_waits_for_a_blob_slot_for_ever(autojump_clock: MockClock) -> None:
    async with scripted(lambda _: good(), A, connections=2) as client:
        async with client.open_blob("a/b", BLOB, endpoint=0), client.open_blob("a/b", BLOB, endpoint=0):
            began = trio.current_time()
            with pytest.raises(UpstreamError, match="all its 2 connections") as caught:
                await blob(client)
            assert caught.value.cause is Cause.TIMEOUT
            assert trio.current_time() - began == pytest.approx(SLOT_SECONDS)
        assert await blob(client) == BODY


async def test_who_holds_a_blob_slot_is_told_whether_others_wait_for_it(autojump_clock: MockClock) -> None:
    async with (
        scripted(lambda _: good(), A, connections=1) as client,
        trio.open_nursery() as nursery,
        client.open_blob("a/b", BLOB, endpoint=0) as stream,
    ):
        assert not stream.wanted()
        nursery.start_soon(client.get_manifest, "a/b", "latest")
        await trio.testing.wait_all_tasks_blocked()
        assert not stream.wanted()
        nursery.start_soon(blob, client)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.wanted()
