"""The token dance: once per scope, no oftener than needed, and never with a stranger."""

from __future__ import annotations

import base64
import traceback
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
import respx
import trio
from trio.testing import MockClock

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream import tokens
from cacheproxy.upstream.credentials import BELIEVED_SECONDS, Account
from cacheproxy.upstream.exchange import Sender
from cacheproxy.upstream.pacing import Paces, Slots
from cacheproxy.upstream.realms import Realms
from cacheproxy.upstream.settings import FileSecret, FixedLogin
from cacheproxy.upstream.tokens import AHEAD_SECONDS, RENEWAL_PAUSE, Authorizer
from cacheproxy.upstream.tokenserver import LARGEST, Realm, Token, TokenServer

REGISTRY = httpx.URL("https://registry.example")
REALM = "https://auth.example/token"
SCOPE = "repository:library/alpine:pull"
CHALLENGE = f'Bearer realm="{REALM}",service="registry.example",scope="{SCOPE}"'


class Scene:
    """An authorizer, and a token server behind respx."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.router = respx.MockRouter(assert_all_called=False)
        self.tokens = self.router.get(REALM).mock(side_effect=self._next)
        self.answer: dict[str, float] = {"expires_in": 300}
        self.password_file = folder / "password"
        self._nursery = nursery
        self.authorizer = self.made(None)

    def made(self, password: str | None, username: str = "u") -> Authorizer:
        source = None if password is None else FixedLogin(username, FileSecret(self.put(password)))
        transport = httpx.MockTransport(self.router.async_handler)
        paces = Paces("hub")
        server = TokenServer("hub", "agent/1", Sender("hub", transport, 30.0), Slots("hub", 8), paces)
        realms = Realms(REGISTRY, ("auth.example",), "hub")
        account = Account(source, "registry.example")
        return Authorizer("hub", account, realms, server, self._nursery)

    def _next(self, request: httpx.Request) -> httpx.Response:
        """t1, t2, ..."""
        return httpx.Response(200, json={"token": f"t{self.tokens.call_count + 1}", **self.answer})

    def put(self, password: str) -> Path:
        self.password_file.write_text(password)
        return self.password_file

    async def dance(self, refused: str | None = None) -> str:
        return await self.authorizer.answer(CHALLENGE, SCOPE, refused)

    @property
    def last(self) -> httpx.Request:
        request: httpx.Request = self.router.calls.last.request
        return request


@pytest.fixture
async def scene(nursery: trio.Nursery, tmp_path: Path) -> Scene:
    return Scene(nursery, tmp_path)


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


# The dance


async def test_token_is_asked_for_anonymously(scene: Scene) -> None:
    assert await scene.dance() == "Bearer t1"
    assert scene.last.url.params == httpx.QueryParams({"service": "registry.example", "scope": SCOPE})
    assert "authorization" not in scene.last.headers
    assert scene.last.headers["accept-encoding"] == "identity"


async def test_token_is_asked_for_with_the_password_of_the_host(scene: Scene) -> None:
    scene.authorizer = scene.made("p")
    await scene.dance()
    assert scene.last.headers["authorization"] == basic("u:p")


async def test_query_of_the_realm_is_kept(scene: Scene) -> None:
    challenge = CHALLENGE.replace(REALM, f"{REALM}?tenant=a%20b")
    await scene.authorizer.answer(challenge, SCOPE, None)
    assert scene.last.url.params["tenant"] == "a b"


@pytest.mark.parametrize(
    ("challenge", "asked"),
    [
        (f'Bearer realm="{REALM}",scope="aws"', {"scope": "aws"}),
        (f'Bearer realm="{REALM}"', {"scope": SCOPE}),
        (f'Basic realm="x", Bearer realm="{REALM}",service=s', {"scope": SCOPE, "service": "s"}),
    ],
)
async def test_scope_is_the_challenges_else_our_own(
    scene: Scene, challenge: str, asked: dict[str, str]
) -> None:
    await scene.authorizer.answer(challenge, SCOPE, None)
    assert dict(scene.last.url.params) == asked


async def test_identity_token_is_exchanged(scene: Scene) -> None:
    exchange = scene.router.post(REALM).respond(json={"access_token": "a1"})
    scene.authorizer = scene.made("identity", "<token>")
    assert await scene.dance() == "Bearer a1"
    form = parse_qs(exchange.calls.last.request.content.decode())
    assert form == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["identity"],
        "service": ["registry.example"],
        "scope": [SCOPE],
        "client_id": ["cacheproxy"],
    }


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_identity_token_goes_by_get_where_post_is_unknown(scene: Scene, status: int) -> None:
    scene.router.post(REALM).respond(status)
    scene.authorizer = scene.made("identity", "<token>")
    assert await scene.dance() == "Bearer t1"
    assert scene.last.headers["authorization"] == basic("<token>:identity")


# Keeping


async def test_token_is_sent_ahead_of_any_challenge_while_it_lives(
    scene: Scene, mock_clock: MockClock
) -> None:
    assert await scene.authorizer.header(SCOPE) is None
    await scene.dance()
    mock_clock.jump(299 - AHEAD_SECONDS)
    assert await scene.authorizer.header(SCOPE) == "Bearer t1"
    assert scene.tokens.call_count == 1


async def test_token_of_one_scope_is_not_sent_for_another(scene: Scene) -> None:
    await scene.dance()
    assert await scene.authorizer.header("repository:other:pull") is None


async def test_expired_token_is_replaced_without_another_challenge(
    scene: Scene, mock_clock: MockClock
) -> None:
    await scene.dance()
    mock_clock.jump(300)
    assert await scene.authorizer.header(SCOPE) == "Bearer t2"


@pytest.mark.parametrize(
    ("said", "seconds"), [(None, 60), (1, 60), (-5, 60), (61, 61), (86400, 3600), (1e300, 3600), (90.5, 90.5)]
)
async def test_lifetime_is_between_a_minute_and_an_hour(
    scene: Scene, said: float | None, seconds: float
) -> None:
    scene.answer = {} if said is None else {"expires_in": said}
    token = await scene.authorizer._server.fetch(Realm(httpx.URL(REALM), "", ""), None)
    assert token.seconds == seconds


async def test_token_is_renewed_in_the_background_when_somebody_asks(
    scene: Scene, mock_clock: MockClock
) -> None:
    await scene.dance()
    mock_clock.jump(301 - AHEAD_SECONDS)
    assert await scene.authorizer.header(SCOPE) == "Bearer t1", "nobody waits for a renewal"
    assert await scene.authorizer.header(SCOPE) == "Bearer t1"
    await trio.testing.wait_all_tasks_blocked()
    assert await scene.authorizer.header(SCOPE) == "Bearer t2"
    assert scene.tokens.call_count == 2


async def test_nobody_asks_nothing_is_renewed(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.dance()
    await trio.sleep(10_000)
    assert scene.tokens.call_count == 1


async def test_failed_renewal_leaves_the_token_and_is_tried_again_later(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.dance()
    scene.tokens.mock(return_value=httpx.Response(503))
    await trio.sleep(301 - AHEAD_SECONDS)
    for _ in range(5):
        assert await scene.authorizer.header(SCOPE) == "Bearer t1"
        await trio.testing.wait_all_tasks_blocked()
    assert scene.tokens.call_count == 2
    scene.tokens.mock(return_value=httpx.Response(200, json={"token": "new"}))
    await trio.sleep(RENEWAL_PAUSE)
    await scene.authorizer.header(SCOPE)
    await trio.testing.wait_all_tasks_blocked()
    assert await scene.authorizer.header(SCOPE) == "Bearer new"


async def test_renewal_that_meets_a_defect_ends_nothing_else(
    scene: Scene, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a nursery of the daemon's own."""
    await scene.dance()
    await trio.sleep(301 - AHEAD_SECONDS)
    with monkeypatch.context() as patch:
        patch.delattr(TokenServer, "fetch")
        assert await scene.authorizer.header(SCOPE) == "Bearer t1"
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(RENEWAL_PAUSE)
    assert await scene.authorizer.header(SCOPE) == "Bearer t1"
    await trio.testing.wait_all_tasks_blocked()
    assert await scene.authorizer.header(SCOPE) == "Bearer t2"


async def test_only_so_many_scopes_are_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SCOPES", 3)
    for scope in ("a", "b", "c", "a", "d"):
        await scene.authorizer.answer(CHALLENGE, scope, None)
    assert [await scene.authorizer.header(scope) is not None for scope in "abcd"] == [True, False, True, True]


# Sharing


async def test_twenty_refusals_at_once_fetch_one_token(scene: Scene) -> None:
    headers = []

    async def one() -> None:
        headers.append(await scene.dance())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one)
    assert (headers, scene.tokens.call_count) == (["Bearer t1"] * 20, 1)


async def test_refused_token_is_replaced_once_for_all(scene: Scene) -> None:
    old = await scene.dance()
    assert await scene.dance(refused=old) == "Bearer t2"
    assert await scene.dance(refused=old) == "Bearer t2", "it came between our 401 and now"
    assert scene.tokens.call_count == 2


async def test_failed_fetch_is_shared_by_those_who_waited_for_it(
    scene: Scene, autojump_clock: MockClock
) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await trio.sleep(5)
        return httpx.Response(503)

    scene.tokens.mock(side_effect=slow)
    failed = []

    async def one() -> None:
        with pytest.raises(UpstreamError):
            await scene.dance()
        failed.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one)
    assert [round(at - began) for at in failed] == [5] * 20
    assert scene.tokens.call_count == 1


async def test_a_failure_that_many_share_does_not_remember_them(
    scene: Scene, autojump_clock: MockClock
) -> None:
    """A traceback that grows with each who raises it would keep all their frames."""

    async def slow(request: httpx.Request) -> httpx.Response:
        await trio.sleep(5)
        return httpx.Response(503)

    scene.tokens.mock(side_effect=slow)
    failures = []

    async def one() -> None:
        with pytest.raises(UpstreamError) as caught:
            await scene.dance()
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    assert len(list(traceback.walk_tb(failures[-1].__traceback__))) < 20


async def test_waiters_go_on_when_the_one_who_fetches_is_cancelled(
    scene: Scene, autojump_clock: MockClock
) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await trio.sleep(5)
        return httpx.Response(200, json={"token": "t"})

    scene.tokens.mock(side_effect=slow)
    got = []

    async def waiter() -> None:
        got.append(await scene.dance())

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(waiter)
            await scene.dance()
    assert got == ["Bearer t"]


# Basic


async def test_basic_is_answered_and_then_sent_ahead(scene: Scene) -> None:
    scene.authorizer = scene.made("p")
    assert await scene.authorizer.header(SCOPE) is None, "nothing is offered unasked"
    assert await scene.authorizer.answer('Basic realm="x"', SCOPE, None) == basic("u:p")
    assert await scene.authorizer.header("any") == basic("u:p")


async def test_who_asked_for_basic_may_ask_for_bearer_later(scene: Scene) -> None:
    scene.authorizer = scene.made("p")
    await scene.authorizer.answer("Basic", SCOPE, None)
    assert await scene.dance(refused=basic("u:p")) == "Bearer t1"
    assert await scene.authorizer.header(SCOPE) == "Bearer t1"


async def test_basic_without_credentials_is_a_denial(scene: Scene) -> None:
    with pytest.raises(UpstreamError, match="none is configured") as caught:
        await scene.authorizer.answer("Basic", SCOPE, None)
    assert caught.value.cause is Cause.AUTH


async def test_refused_password_is_read_again(scene: Scene, autojump_clock: MockClock) -> None:
    scene.authorizer = scene.made("old")
    old = await scene.authorizer.answer("Basic", SCOPE, None)
    with pytest.raises(UpstreamError, match="refuses the configured credentials"):
        await scene.authorizer.answer("Basic", SCOPE, refused=old)
    scene.put("new")
    await trio.sleep(BELIEVED_SECONDS)
    assert await scene.authorizer.answer("Basic", SCOPE, refused=old) == basic("u:new")


async def test_token_server_that_refuses_the_password_gets_the_new_one(
    scene: Scene, autojump_clock: MockClock
) -> None:
    def judge(request: httpx.Request) -> httpx.Response:
        known = request.headers["authorization"] == basic("u:new")
        return httpx.Response(200, json={"token": "t"}) if known else httpx.Response(401)

    scene.tokens.mock(side_effect=judge)
    scene.authorizer = scene.made("old")
    with pytest.raises(UpstreamError) as caught:
        await scene.dance()
    assert (caught.value.cause, caught.value.status) == (Cause.AUTH, 401)
    assert scene.tokens.call_count == 1, "the same password is not offered twice"
    scene.put("new")
    await trio.sleep(BELIEVED_SECONDS)
    assert await scene.dance() == "Bearer t"


async def test_credentials_that_cannot_be_had_are_a_denial_without_details(scene: Scene) -> None:
    scene.authorizer = scene.made("p")
    scene.password_file.unlink()
    with pytest.raises(UpstreamError) as caught:
        await scene.dance()
    assert caught.value.cause is Cause.AUTH
    assert str(scene.password_file) not in str(caught.value)
    assert scene.tokens.call_count == 0


# Attacks, and servers that do not do their work


@pytest.mark.parametrize(
    "realm",
    [
        "https://evil.example/token",
        "https://169.254.169.254/token",
        "https://127.0.0.1/token",
        "http://auth.example/token",
        "https://u:p@auth.example/token",
        "https://auth.example:8443/token",
        "",
    ],
)
async def test_realm_elsewhere_is_refused_and_nothing_leaves(scene: Scene, realm: str) -> None:
    scene.router.route().respond(200, json={"token": "stolen"})
    scene.authorizer = scene.made("p")
    with pytest.raises(UpstreamError) as caught:
        await scene.authorizer.answer(f'Bearer realm="{realm}"', SCOPE, None)
    assert caught.value.cause is Cause.GATE
    assert scene.router.calls.call_count == 0


async def test_redirecting_token_server_is_refused(scene: Scene) -> None:
    scene.tokens.respond(307, headers={"Location": "https://evil.example/"})
    evil = scene.router.route(host="evil.example")
    scene.authorizer = scene.made("p")
    with pytest.raises(UpstreamError, match="redirects") as caught:
        await scene.dance()
    assert (caught.value.cause, evil.called) == (Cause.GATE, False)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (httpx.Response(401), Cause.AUTH),
        (httpx.Response(403, json={"details": "s3cret"}), Cause.AUTH),
        (httpx.Response(404), Cause.AUTH),
        (httpx.Response(429, headers={"Retry-After": "7"}), Cause.THROTTLED),
        (httpx.Response(500), Cause.SERVER),
        (httpx.Response(200, text="s3cret"), Cause.PROTOCOL),
        (httpx.Response(200, text="[" * 10_000), Cause.PROTOCOL),
        (httpx.Response(200, json={}), Cause.PROTOCOL),
        (httpx.Response(200, json={"token": ""}), Cause.PROTOCOL),
        (httpx.Response(200, json={"token": 7}), Cause.PROTOCOL),
        (httpx.Response(200, json={"token": "a\r\nX-Evil: s3cret"}), Cause.PROTOCOL),
        (httpx.Response(200, json={"token": "tökén"}), Cause.PROTOCOL),
        (httpx.Response(200, json={"token": "t" * LARGEST}), Cause.PROTOCOL),
        (httpx.Response(200, json={"token": "t"}, headers={"Content-Encoding": "br"}), Cause.PROTOCOL),
        (httpx.ConnectError("refused"), Cause.CONNECT),
    ],
    ids=lambda value: value.name if isinstance(value, Cause) else None,
)
async def test_failures_of_the_token_server_have_their_cause_and_show_nothing_of_its_answer(
    scene: Scene, answer: httpx.Response | Exception, cause: Cause
) -> None:
    if isinstance(answer, Exception):
        scene.tokens.mock(side_effect=answer)
    else:
        scene.tokens.mock(return_value=answer)
    with pytest.raises(UpstreamError) as caught:
        await scene.dance()
    assert caught.value.cause is cause
    assert "s3cret" not in str(caught.value)


async def test_token_server_that_drips_is_left(scene: Scene, autojump_clock: MockClock) -> None:
    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            while True:
                await trio.sleep(1)
                yield b" "

    scene.tokens.mock(return_value=httpx.Response(200, stream=Drip()))
    began = trio.current_time()
    with pytest.raises(UpstreamError) as caught:
        await scene.dance()
    assert caught.value.cause is Cause.TIMEOUT
    assert trio.current_time() - began < 20


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x", "\x00"])
async def test_challenge_that_we_cannot_answer_is_a_denial(scene: Scene, challenge: str) -> None:
    with pytest.raises(UpstreamError, match="not for Bearer or Basic") as caught:
        await scene.authorizer.answer(challenge, SCOPE, None)
    assert caught.value.cause is Cause.AUTH


async def test_oversized_challenge_is_not_passed_on(scene: Scene) -> None:
    with pytest.raises(UpstreamError, match="oversized"):
        await scene.authorizer.answer(f'Bearer realm="{REALM}",scope="{"a" * 2000}"', SCOPE, None)


def test_token_is_not_shown() -> None:
    assert "s3cret" not in repr(Token("s3cret", 60))


async def test_throttled_token_server_is_left_alone(scene: Scene) -> None:
    scene.tokens.respond(429, headers={"Retry-After": "7"})
    for _ in range(3):
        with pytest.raises(UpstreamError) as caught:
            await scene.dance()
        assert caught.value.cause is Cause.THROTTLED
    assert scene.tokens.call_count == 1
