"""An answer that is none says why, in words that can be passed on."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.failures import Cause
from cacheproxy.upstream.refusals import LARGEST_REASON, LONGEST_REASON, cause_of_status, refusal


def error(code: object, message: object) -> dict[str, object]:
    return {"errors": [{"code": code, "message": message, "detail": {"x": [1]}}]}


async def reason(response: httpx.Response) -> str:
    found = await refusal(response, "registry.example", "hub", foreign=False)
    return found.message.removeprefix(f"answered {response.status_code}").removeprefix(": ")


@pytest.mark.parametrize(
    ("status", "own", "foreign"),
    [
        (401, Cause.AUTH, Cause.SERVER),
        (402, Cause.AUTH, Cause.SERVER),
        (403, Cause.AUTH, Cause.SERVER),
        (404, Cause.MISSING, Cause.MISSING),
        (410, Cause.MISSING, Cause.MISSING),
        (408, Cause.TIMEOUT, Cause.TIMEOUT),
        (429, Cause.THROTTLED, Cause.THROTTLED),
        (500, Cause.SERVER, Cause.SERVER),
        (501, Cause.PROTOCOL, Cause.PROTOCOL),
        (400, Cause.PROTOCOL, Cause.PROTOCOL),
        (416, Cause.PROTOCOL, Cause.PROTOCOL),
        (304, Cause.PROTOCOL, Cause.PROTOCOL),
    ],
)
def test_each_status_has_its_cause(status: int, own: Cause, foreign: Cause) -> None:
    assert (cause_of_status(status), cause_of_status(status, foreign=True)) == (own, foreign)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            error("TOOMANYREQUESTS", "You have reached your pull rate limit"),
            "TOOMANYREQUESTS: You have reached your pull rate limit",
        ),
        (error("A", "two\r\nlines\x1b[31m"), "A: two  lines [31m"),
        (error("A", "x" * 1000), "A: " + "x" * (LONGEST_REASON - 3)),
        ({"errors": [{"code": "A", "message": "a"}, {"code": "B"}]}, "A: a; B: "),
        ({"errors": []}, ""),
        ({"errors": None}, ""),
        (error(1, "x"), ""),
        (["errors"], ""),
        (error("A", "x" * LARGEST_REASON), ""),
    ],
)
async def test_reason_is_what_the_registry_says_made_harmless(body: object, expected: str) -> None:
    assert await reason(httpx.Response(403, json=body)) == expected


@pytest.mark.parametrize("text", ["", "<html>no</html>", "[" * 4000, "\x00"])
async def test_body_that_is_no_error_gives_no_reason(text: str) -> None:
    assert await reason(httpx.Response(503, text=text)) == ""


async def test_encoded_reason_is_not_read() -> None:
    stream = httpx.ByteStream(b"\x1f\x8b")
    assert await reason(httpx.Response(403, stream=stream, headers={"Content-Encoding": "gzip"})) == ""


async def test_reason_is_not_waited_for(autojump_clock: MockClock) -> None:
    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            await trio.sleep_forever()
            yield b""

    assert await reason(httpx.Response(503, stream=Silent())) == ""
    assert trio.current_time() < 3


async def test_strangers_reason_is_not_passed_on() -> None:
    response = httpx.Response(403, json=error("AccessDenied", "s3cret"))
    found = await refusal(response, "cdn.example", "hub", foreign=True)
    assert (found.message, found.cause, found.status) == ("cdn.example answered 403", Cause.SERVER, 403)


async def test_retry_after_goes_with_it() -> None:
    found = await refusal(httpx.Response(429, headers={"Retry-After": "12"}), "h", "hub", foreign=False)
    assert found.retry_after == 12
