"""Endpoints are asked in order, as long as it makes sense and no longer than there is time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.upstream.mirrors import PAUSES, TURN_SECONDS
from cacheproxy.upstream.pacing import FAILURES, OPEN_SECONDS
from cacheproxy.upstream.registry import FetchedManifest, Registry
from tests.upstream.stage import scripted

A, B, C = "https://a.example", "https://b.example", "https://c.example"
BODY = b"{}"
GOOD = httpx.Response(200, content=BODY, headers={"Content-Type": OCI_INDEX})

Reply = httpx.Response | Exception | float
"""An answer, a failure, or so many seconds of silence before a good answer."""


class Hosts:
    """Each answers with its replies in turn, then with the last of them for ever."""

    def __init__(self, **replies: list[Reply] | Reply) -> None:
        self.replies = {host: list(r) if isinstance(r, list) else [r] for host, r in replies.items()}
        self.asked: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host.partition(".")[0]
        self.asked.append(host)
        replies = self.replies[host]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if isinstance(reply, float):
            await trio.sleep(reply)
            reply = GOOD
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, content=reply.content, headers=reply.headers)


async def get(client: Registry, **arguments: Any) -> FetchedManifest:
    return await client.get_manifest("a/b", "1", **arguments)


async def failure(call: Callable[[], Awaitable[object]]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await call()
    return caught.value


REFUSED = httpx.ConnectError("refused")


@pytest.mark.parametrize(
    "reply",
    [REFUSED, httpx.ReadTimeout("slow"), httpx.Response(503), httpx.Response(429)],
    ids=["connect", "timeout", "5xx", "429"],
)
async def test_next_one_is_asked_when_one_fails(reply: Reply) -> None:
    hosts = Hosts(a=reply, b=reply, c=GOOD)
    async with scripted(hosts, A, B, C) as client:
        assert (await get(client)).body == BODY
    assert hosts.asked == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (httpx.Response(404), Cause.MISSING),
        (httpx.Response(403), Cause.AUTH),
        (httpx.Response(400), Cause.PROTOCOL),
    ],
)
async def test_upstreams_own_word_is_final(reply: httpx.Response, cause: Cause) -> None:
    hosts = Hosts(a=reply, b=GOOD)
    async with scripted(hosts, A, B) as client:
        assert (await failure(lambda: get(client))).cause is cause
    assert hosts.asked == ["a"]


@pytest.mark.parametrize("status", [404, 403, 400])
async def test_mirrors_word_counts_for_nothing_while_the_upstream_is_down(
    status: int, autojump_clock: MockClock
) -> None:
    hosts = Hosts(a=REFUSED, b=httpx.Response(status), c=httpx.Response(404))
    async with scripted(hosts, A, B, C) as client:
        error = await failure(lambda: get(client))
    assert error.cause is Cause.CONNECT
    assert hosts.asked == ["a", "b", "c"] * 3


async def test_mirror_after_one_that_has_not_got_it_is_asked(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=REFUSED, b=httpx.Response(404), c=GOOD)
    async with scripted(hosts, A, B, C) as client:
        assert (await get(client)).body == BODY


@pytest.mark.parametrize("reply", [REFUSED, httpx.Response(500), httpx.Response(503)])
async def test_what_may_pass_is_tried_again_twice(reply: Reply, autojump_clock: MockClock) -> None:
    hosts = Hosts(a=[reply, reply, GOOD])
    async with scripted(hosts, A) as client:
        began = trio.current_time()
        assert (await get(client)).body == BODY
        assert sum(PAUSES) / 2 <= trio.current_time() - began <= sum(PAUSES)
    hosts = Hosts(a=reply)
    async with scripted(hosts, A) as client:
        await failure(lambda: get(client))
    assert len(hosts.asked) == 3


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(429),
        httpx.Response(404),
        httpx.ReadTimeout("slow"),
        httpx.Response(503, headers={"Retry-After": "9"}),
    ],
)
async def test_what_does_not_pass_is_not_tried_again(reply: Reply) -> None:
    hosts = Hosts(a=reply)
    async with scripted(hosts, A) as client:
        await failure(lambda: get(client))
    assert hosts.asked == ["a"]


async def test_blob_is_asked_for_once() -> None:
    hosts = Hosts(a=REFUSED, b=GOOD)

    async with scripted(hosts, A, B) as client:

        async def read(endpoint: int) -> bytes:
            wanted = client.open_blob("a/b", Digest.of(BODY), endpoint=endpoint)
            async with wanted as stream:
                return b"".join([chunk async for chunk in stream.chunks])

        assert (await failure(lambda: read(0))).cause is Cause.CONNECT
        assert await read(1) == BODY
    assert hosts.asked == ["a", "b"]


# Time


async def test_silent_upstream_leaves_time_for_its_mirror(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=1e9, b=GOOD)
    async with scripted(hosts, A, B) as client:
        began = trio.current_time()
        assert (await get(client)).body == BODY
        assert trio.current_time() - began == pytest.approx(TURN_SECONDS)


async def test_lone_upstream_may_take_as_long_as_a_stall(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=29.0)
    async with scripted(hosts, A) as client:
        assert (await get(client)).body == BODY
        hosts.replies["a"] = [1e9]
        began = trio.current_time()
        assert (await failure(lambda: get(client))).cause is Cause.TIMEOUT
        assert trio.current_time() - began == pytest.approx(30)


@pytest.mark.parametrize("urls", [(A,), (A, B)])
async def test_patience_is_for_everything_together(urls: tuple[str, ...], autojump_clock: MockClock) -> None:
    hosts = Hosts(a=1e9, b=1e9)
    async with scripted(hosts, *urls) as client:
        for call in (client.get_manifest, client.head_manifest):
            began = trio.current_time()
            with pytest.raises(UpstreamError) as caught:
                await call("a/b", "1", patience=2.0)
            assert caught.value.cause is Cause.TIMEOUT
            assert trio.current_time() - began == pytest.approx(2.0, abs=0.2)
    assert Counter(hosts.asked) == dict.fromkeys((url[8] for url in urls), 2)


async def test_patience_covers_the_body(autojump_clock: MockClock) -> None:
    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            while True:
                yield b" "
                await trio.sleep(0.5)

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Slow())

    async with scripted(answer, A) as client:
        began = trio.current_time()
        assert (await failure(lambda: get(client, patience=2.0))).cause is Cause.TIMEOUT
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.2)


async def test_retries_end_with_the_patience(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=httpx.Response(503))
    async with scripted(hosts, A) as client:
        began = trio.current_time()
        assert (await failure(lambda: get(client, patience=0.05))).cause is Cause.SERVER
        assert trio.current_time() - began < 0.05
    assert hosts.asked == ["a"]


# The breaker


async def test_dead_upstream_is_left_alone_then_probed_and_heals(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=REFUSED)
    async with scripted(hosts, A) as client:
        for _ in range(4):
            await failure(lambda: get(client))
        assert len(hosts.asked) == FAILURES
        error = await failure(lambda: get(client))
        assert (error.cause, error.because) == (Cause.BREAKER, Cause.CONNECT)
        hosts.replies["a"] = [GOOD]
        await trio.sleep(OPEN_SECONDS)
        assert (await get(client)).body == BODY


async def test_one_image_that_the_upstream_cannot_read_keeps_nobody_from_the_others(
    autojump_clock: MockClock,
) -> None:
    """A registry says 500 of a manifest that is damaged, as often as somebody polls it."""

    def answer(request: httpx.Request) -> httpx.Response:
        broken = request.url.path.endswith("/broken")
        return httpx.Response(500) if broken else httpx.Response(200, content=BODY)

    async with scripted(answer, A) as client:
        for _ in range(FAILURES):
            assert (await failure(lambda: client.get_manifest("a/b", "broken"))).status == 500
        assert (await get(client)).body == BODY


async def test_mirror_is_asked_at_once_while_the_breaker_is_open(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=REFUSED, b=GOOD)
    async with scripted(hosts, A, B) as client:
        for _ in range(20):
            assert (await get(client)).body == BODY
    assert Counter(hosts.asked) == {"a": FAILURES, "b": 20}


async def test_impatience_counts_as_a_timeout_of_the_upstream(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=1e9)
    async with scripted(hosts, A) as client:
        for _ in range(FAILURES):
            await failure(lambda: get(client, patience=1.0))
        assert (await failure(lambda: get(client))).because is Cause.TIMEOUT


async def test_clients_that_go_away_do_not_open_the_breaker(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=5.0)
    async with scripted(hosts, A) as client:
        for _ in range(FAILURES + 1):
            with trio.move_on_after(1):
                await get(client)
        assert (await get(client)).body == BODY


async def test_probe_whose_client_goes_away_makes_room_for_the_next(autojump_clock: MockClock) -> None:
    hosts = Hosts(a=[*[REFUSED] * FAILURES, 5.0, GOOD])
    async with scripted(hosts, A) as client:
        await failure(lambda: get(client))
        await failure(lambda: get(client))
        await trio.sleep(OPEN_SECONDS)
        with trio.move_on_after(1):
            await get(client)
        assert (await get(client)).body == BODY
