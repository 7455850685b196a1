from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.upstream.causes import AddressRefused
from cacheproxy.upstream.webhook import SECONDS, Answer, Receiver, Unreached

URL = "https://hooks.test/registry?token=s3cret"

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def receiver(handler: Handler) -> Receiver:
    return Receiver(URL, httpx.MockTransport(handler), lambda: 1000.0, "cacheproxy/test")  # type: ignore[arg-type]


async def test_an_event_is_posted_as_it_is() -> None:
    seen: list[httpx.Request] = []

    async def take(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    headers = [("Content-Type", "application/json"), ("webhook-id", "1")]
    assert await receiver(take).post(headers, b'{"a":1}') == Answer(204, None)
    (request,) = seen
    assert (request.method, str(request.url), request.content) == ("POST", URL, b'{"a":1}')
    assert request.headers["webhook-id"] == "1"
    assert request.headers["content-length"] == "7"
    assert request.headers["user-agent"] == "cacheproxy/test"


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("Thu, 01 Jan 1970 00:17:00 GMT", 20.0), ("soon", None)]
)
async def test_when_it_wants_to_hear_again_is_told(said: str, seconds: float | None) -> None:
    async def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, headers={"Retry-After": said})

    assert await receiver(refuse).post([], b"") == Answer(503, seconds)


async def test_a_redirect_is_not_followed() -> None:
    async def redirect(request: httpx.Request) -> httpx.Response:
        assert request.url == httpx.URL(URL)
        return httpx.Response(302, headers={"Location": "http://169.254.169.254/"})

    assert (await receiver(redirect).post([], b"")).status == 302


async def test_who_does_not_answer_is_left_after_a_while(autojump_clock: MockClock) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(Unreached, match=f"no answer within {SECONDS:g} s"):
        await receiver(hang).post([], b"")
    assert trio.current_time() == pytest.approx(SECONDS)


async def test_a_body_without_an_end_holds_nobody(autojump_clock: MockClock) -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            while True:
                await trio.sleep(0.01)
                yield b"x"

    async def drip(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Endless())

    assert (await receiver(drip).post([], b"")).status == 200
    assert trio.current_time() < SECONDS


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AddressRefused("address 10.0.0.1 is refused; allow_addresses may list it"), "allow_addresses"),
        (httpx.ConnectError("connection refused"), "refused"),
        (httpx.ReadError(""), "connect"),
    ],
)
async def test_why_it_is_not_reached_is_said_without_its_address(error: Exception, said: str) -> None:
    async def fail(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(Unreached, match=said) as unreached:
        await receiver(fail).post([], b"")
    assert "s3cret" not in str(unreached.value)
