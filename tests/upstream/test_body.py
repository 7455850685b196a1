"""Bodies are read as fast as they come, and given up when they do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.body import RATE_SECONDS, Chunks, MinimumRate, content_length, read_whole
from tests.upstream.stage import scripted

STALL, RATE = 30.0, 1024.0


class Script(httpx.AsyncByteStream):
    """Pieces, each after so many seconds; then an error, if there is one."""

    def __init__(self, *pieces: tuple[float, bytes], error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            for seconds, piece in self.pieces:
                await trio.sleep(seconds)
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


def chunks(script: httpx.AsyncByteStream) -> Chunks:
    return Chunks(httpx.Response(200, stream=script), "host.example", "hub", STALL, RATE)


async def ended(script: Script) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await read_whole(chunks(script), 1 << 20, "hub")
    return caught.value


async def test_pieces_come_as_they_were_received() -> None:
    assert [piece async for piece in chunks(Script((0, b"a"), (0, b"bc")))] == [b"a", b"bc"]


async def test_stall_ends_it(autojump_clock: MockClock) -> None:
    error = await ended(Script((29.0, b"x"), (31.0, b"y")))
    assert error.cause is Cause.TIMEOUT
    assert trio.current_time() == pytest.approx(59)
    assert "host.example sent nothing for 30 s" in error.message


async def test_drip_ends_it_after_a_minute(autojump_clock: MockClock) -> None:
    error = await ended(Script(*[(1.0, b"x")] * 100))
    assert error.cause is Cause.TIMEOUT
    assert trio.current_time() == pytest.approx(RATE_SECONDS)


async def test_just_fast_enough_goes_on_for_ever(autojump_clock: MockClock) -> None:
    script = Script(*[(10.0, b"x" * 10240)] * 100)
    assert len(await read_whole(chunks(script), 1 << 30, "hub")) == 1024000


async def test_slow_reader_is_not_the_peers_fault(autojump_clock: MockClock) -> None:
    count = 0
    async for _ in chunks(Script(*[(0.1, b"x")] * 100)):
        await trio.sleep(60)
        count += 1
    assert count == 100


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (httpx.ReadError("reset"), Cause.CONNECT),
        (httpx.ReadTimeout("slow"), Cause.TIMEOUT),
        (httpx.RemoteProtocolError("nonsense"), Cause.PROTOCOL),
    ],
)
async def test_broken_body_has_its_cause(error: Exception, cause: Cause) -> None:
    assert (await ended(Script((0, b"x"), error=error))).cause is cause


async def test_more_than_allowed_is_noticed_before_its_end() -> None:
    pieces = [(0, b"x" * 10)] * 3
    async with aclosing(chunks(Script(*pieces, error=AssertionError("read on")))) as body:
        with pytest.raises(UpstreamError, match="more than 20 bytes"):
            await read_whole(body, 20, "hub")
    assert await read_whole(chunks(Script(*pieces)), 30, "hub") == b"x" * 30


async def test_received_bytes_are_counted() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("cacheproxy_upstream_bytes_total", {"upstream": "hub"}) or 0.0

    before = counted()
    await read_whole(chunks(Script((0, b"x" * 1000))), 1 << 20, "hub")
    assert counted() - before == 1000


async def test_stream_that_is_left_half_way_is_closed() -> None:
    script = Script(*[(0, b"x")] * 10)

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=script)

    async with scripted(answer) as client:
        async with client.open_blob("a/b", Digest.of(b""), endpoint=0) as stream:
            assert await anext(stream.chunks) == b"x"
        assert script.closed


async def test_cancelled_reader_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    script = Script((0, b"x"), (1e9, b"y"))

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=script)

    async def read(stream: AsyncIterator[bytes]) -> None:
        async for _ in stream:
            pass

    async with scripted(answer, connections=1) as client:
        for _ in range(3):
            with trio.move_on_after(5) as cut:
                async with client.open_blob("a/b", Digest.of(b""), endpoint=0) as stream:
                    await read(stream.chunks)
            assert cut.cancelled_caught
            assert script.closed


@given(st.lists(st.tuples(st.floats(0, STALL), st.integers(0, 100_000)), max_size=50))
def test_minimum_rate_never_fails_who_keeps_it(script: list[tuple[float, int]]) -> None:
    rate = MinimumRate(RATE)
    assert all(rate.kept(seconds, count + int(seconds * RATE) + 1) for seconds, count in script)


@given(st.floats(0.1, STALL))
def test_minimum_rate_fails_who_does_not_within_two_windows(seconds: float) -> None:
    rate, waited = MinimumRate(RATE), 0.0
    while rate.kept(seconds, int(seconds * RATE / 2)):
        waited += seconds
        assert waited <= 2 * RATE_SECONDS


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("0", 0),
        ("17", 17),
        ("-1", None),
        ("1e3", None),
        ("", None),
        ("٣", None),
        ("9" * 30, None),
        (" 5", None),
    ],
)
def test_content_length_is_digits(value: str, length: int | None) -> None:
    headers = [(b"Content-Length", value.encode())]
    assert content_length(httpx.Response(200, headers=headers)) == length
