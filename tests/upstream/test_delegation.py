"""Callers' logins at an upstream: where they go, what comes of them, and who is asked with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.credentials import Credentials
from cacheproxy.upstream.delegation import LENT, Delegation, Held, Lent, Presented, pull
from cacheproxy.upstream.registry import Registry
from tests.upstream.stage import scripted

ALICE = Credentials("alice", "secret")
BEARER = 'Bearer realm="{}",service="corp"'
Answer = Callable[[httpx.Request], httpx.Response]


def challenging(challenge: str, sent: list[httpx.Request], token: httpx.Response | None = None) -> Answer:
    """What it is asked without a right login it answers with the challenge."""

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if request.url.path == "/token":
            return token or httpx.Response(200, json={"token": "t", "expires_in": 120})
        if request.headers.get("authorization") in (ALICE.basic, "Bearer t"):
            return httpx.Response(200)
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    return answer


async def exchange(registry: Registry, credentials: Credentials | None, repository: str | None) -> Held:
    assert isinstance(registry.delegation, Delegation)
    return await registry.delegation.exchange(credentials, repository, trio.current_time() + 20)


async def test_a_login_becomes_a_token_for_the_repository_at_the_realm(autojump_clock: MockClock) -> None:
    sent: list[httpx.Request] = []
    realm = BEARER.format("https://registry.example/token")
    async with scripted(challenging(realm, sent), by_caller=True) as registry:
        held = await exchange(registry, ALICE, "team/app")
    assert (held.header, held.seconds) == ("Bearer t", 120)
    assert dict(sent[-1].url.params) == {"service": "corp", "scope": "repository:team/app:pull"}
    assert [request.headers.get("authorization") for request in sent] == [None, ALICE.basic]
    assert "secret" not in repr(held)
    assert "Bearer t" not in repr(held)


async def test_a_login_for_nothing_has_no_scope(autojump_clock: MockClock) -> None:
    sent: list[httpx.Request] = []
    realm = BEARER.format("https://registry.example/token")
    async with scripted(challenging(realm, sent), by_caller=True) as registry:
        await exchange(registry, ALICE, None)
    assert dict(sent[-1].url.params) == {"service": "corp"}


@pytest.mark.parametrize(
    "realm",
    ["https://evil.example/token", "http://registry.example/token", "https://registry.example:444/token"],
)
async def test_a_login_is_not_sent_to_a_realm_elsewhere(realm: str, autojump_clock: MockClock) -> None:
    sent: list[httpx.Request] = []
    async with scripted(challenging(BEARER.format(realm), sent), by_caller=True) as registry:
        with pytest.raises(UpstreamError) as caught:
            await exchange(registry, ALICE, "team/app")
    assert caught.value.cause is Cause.GATE
    assert [request.headers.get("authorization") for request in sent] == [None]


async def test_a_login_is_sent_itself_where_it_is_asked_for(autojump_clock: MockClock) -> None:
    sent: list[httpx.Request] = []
    async with scripted(challenging('Basic realm="x"', sent), by_caller=True) as registry:
        assert (await exchange(registry, ALICE, "team/app")).header == ALICE.basic
        for credentials in (Credentials("alice", "wrong"), None):
            with pytest.raises(UpstreamError) as caught:
                await exchange(registry, credentials, "team/app")
            assert (caught.value.cause, caught.value.status) == (Cause.AUTH, 401)


async def test_what_asks_nobody_is_asked_with_nothing(autojump_clock: MockClock) -> None:
    async with scripted(lambda request: httpx.Response(200), by_caller=True) as registry:
        assert (await exchange(registry, ALICE, "team/app")).header is None


async def test_a_repository_that_asks_where_all_others_do_not_is_asked_for_itself(
    autojump_clock: MockClock,
) -> None:
    sent: list[httpx.Request] = []
    closed = challenging(BEARER.format("https://registry.example/token"), sent)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200) if request.url.path == "/v2/" else closed(request)

    async with scripted(answer, by_caller=True) as registry:
        assert (await exchange(registry, None, "team/app")).header == "Bearer t"


async def test_what_says_nothing_that_is_understood_is_an_error(autojump_clock: MockClock) -> None:
    async with scripted(challenging("Negotiate", []), by_caller=True) as registry:
        with pytest.raises(UpstreamError, match="Bearer or Basic"):
            await exchange(registry, ALICE, None)
    long = BEARER.format("https://registry.example/token") + f',scope="{"x" * 2000}"'
    async with scripted(challenging(long, []), by_caller=True) as registry:
        with pytest.raises(UpstreamError, match="oversized"):
            await exchange(registry, ALICE, None)


async def test_an_upstream_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with scripted(answer, by_caller=True) as registry:
        with pytest.raises(UpstreamError) as caught:
            await exchange(registry, ALICE, "team/app")
    assert caught.value.cause is Cause.TIMEOUT


async def test_a_ping_proves_that_callers_would_be_asked_where_they_may(autojump_clock: MockClock) -> None:
    async with scripted(
        challenging(BEARER.format("https://registry.example/token"), []), by_caller=True
    ) as fine:
        assert await fine.ping(0, 5) is None
    async with scripted(
        challenging(BEARER.format("https://evil.example/t"), []), by_caller=True
    ) as elsewhere:
        with pytest.raises(UpstreamError) as caught:
            await elsewhere.ping(0, 5)
    assert caught.value.cause is Cause.GATE


async def test_a_presented_header_is_sent_and_no_other(autojump_clock: MockClock) -> None:
    sent: list[httpx.Request] = []
    async with scripted(challenging('Basic realm="x"', sent), by_caller=True) as registry:
        assert registry.delegation is not None
        registry.delegation.lend("team/app", ALICE.basic, trio.current_time() + 60)
        with pytest.raises(UpstreamError) as caught:
            await registry.presenting("Bearer other").has_tags("team/app")
        await registry.has_tags("team/app")
    assert caught.value.cause is Cause.AUTH
    assert [request.headers["authorization"] for request in sent] == ["Bearer other", ALICE.basic]


async def test_the_newest_that_is_still_good_is_lent(autojump_clock: MockClock) -> None:
    lent, scope = Lent("corp"), pull("team/app")
    assert await lent.header(scope) is None
    lent.lend(scope, "old", 100)
    lent.lend(scope, "new", 50)
    assert await lent.header(scope) == "new"
    await trio.sleep(60)
    assert await lent.header(scope) == "old"
    assert await lent.header(pull("other")) is None


async def test_what_was_refused_is_lent_no_more(autojump_clock: MockClock) -> None:
    lent, scope = Lent("corp"), pull("team/app")
    lent.lend(scope, "a", 100)
    lent.lend(scope, "b", 100)
    assert await lent.answer("", scope, "b") == "a"
    with pytest.raises(UpstreamError, match="no caller"):
        await lent.answer("", scope, "a")


async def test_few_are_kept(autojump_clock: MockClock) -> None:
    lent, scope = Lent("corp"), pull("team/app")
    for number in range(LENT + 1):
        lent.lend(scope, str(number), 100)
    kept = [str(number) for number in range(LENT, 0, -1)]
    for header, following in pairwise(kept):
        assert await lent.answer("", scope, header) == following


async def test_a_presented_header_that_is_refused_has_no_other() -> None:
    with pytest.raises(UpstreamError) as caught:
        await Presented("corp", "x").answer("", "", "x")
    assert (caught.value.cause, caught.value.status) == (Cause.AUTH, 401)
