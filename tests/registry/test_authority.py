"""Each caller's right upstream: proven by its answer, once a repository, and for five minutes."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core import operations as ops
from cacheproxy.core.credentials import Login
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry import authority
from cacheproxy.registry.authority import PROVEN_FOR, RENEWED_FROM, Authority, Ticket, Tickets
from tests.upstream.stage import scripted

ALICE, BOB = Login("alice", "secret"), Login("bob", "hunter2")
TAGS = ops.Tags("team/app")
DIGEST = Digest.of(b"x")


class Upstream:
    """Tokens are the login's name; `readers` may read, everything."""

    def __init__(self) -> None:
        self.logins = {ALICE, BOB}
        self.readers = {"alice"}
        self.seconds = 3600
        self.down = False
        self.seen: list[str] = []
        self.missing: set[str] = set()
        self.forbidden = False

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.seen.append(request.url.path)
        if self.down:
            return httpx.Response(503)
        said = request.headers.get("authorization", "")
        if request.url.path == "/token":
            return self._token(said)
        if said.removeprefix("Bearer ") not in self.readers:
            return httpx.Response(
                401, headers={"WWW-Authenticate": 'Bearer realm="https://registry.example/token"'}
            )
        if request.url.path in self.missing:
            return httpx.Response(404)
        return httpx.Response(200, headers={"Docker-Content-Digest": DIGEST, "Content-Length": "1"})

    def _token(self, said: str) -> httpx.Response:
        if self.forbidden:
            return httpx.Response(403)
        if not said:
            return httpx.Response(200, json={"token": "anonymous", "expires_in": self.seconds})
        name, _, password = base64.b64decode(said.removeprefix("Basic ")).decode().partition(":")
        if Login(name, password) not in self.logins:
            return httpx.Response(401)
        return httpx.Response(200, json={"token": name, "expires_in": self.seconds})

    @property
    def asked(self) -> int:
        """Questions that may prove a right."""
        return sum(path not in ("/v2/", "/token") for path in self.seen)


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[Upstream, Authority]]:
    upstream = Upstream()
    async with scripted(upstream.answer, by_caller=True) as registry, trio.open_nursery() as nursery:
        yield upstream, Authority(registry, Tickets(), nursery)


async def given(authority: Authority, login: Login | None, *names: str) -> Ticket:
    text, ticket = await authority.ticket(login, names or ("team/app",), None)
    assert authority.find(text) is ticket
    return ticket


async def prove(authority: Authority, ticket: Ticket, operation: ops.Operation = TAGS) -> None:
    await authority.prove(ticket.permits["team/app"], operation, "team/app")


async def test_a_right_is_proven_once(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        ticket = await given(authority, ALICE)
        for operation in (TAGS, ops.Manifest("team/app", "latest"), ops.Blob("team/app", DIGEST)):
            await prove(authority, ticket, operation)
        assert upstream.asked == 1


async def test_many_at_once_are_one_question(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        ticket = await given(authority, ALICE)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(prove, authority, ticket)
        assert upstream.asked == 1


@pytest.mark.parametrize(
    "operation",
    [
        TAGS,
        ops.Manifest("a", "latest"),
        ops.Manifest("a", DIGEST),
        ops.Blob("a", DIGEST),
        ops.Referrers("a", DIGEST),
    ],
)
async def test_who_may_not_read_proves_nothing_however_it_asks(
    operation: ops.Operation, autojump_clock: MockClock
) -> None:
    async with scene() as (_, authority):
        await prove(authority, await given(authority, ALICE), operation)
        for login in (BOB, None):
            with pytest.raises(UpstreamError) as caught:
                await prove(authority, await given(authority, login), operation)
            assert caught.value.cause is Cause.AUTH


async def test_a_right_is_for_the_repositories_that_were_asked_for(autojump_clock: MockClock) -> None:
    async with scene() as (_, authority):
        await given(authority, ALICE, "team/app", "team/other")
        assert set((await given(authority, ALICE, "team/app")).permits) == {"team/app"}


async def test_who_is_revoked_is_refused_within_five_minutes_though_the_token_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (upstream, authority):
        text, ticket = await authority.ticket(ALICE, ["team/app"], None)
        await trio.sleep(PROVEN_FOR / 2)
        await prove(authority, ticket)  # the latest that it can be asked with what it gave
        upstream.logins.clear()
        await trio.sleep(PROVEN_FOR / 2 - 1)
        assert authority.find(text) is ticket
        await trio.sleep(1)
        assert authority.find(text) is None
        with pytest.raises(UpstreamError) as caught:
            await authority.ticket(ALICE, ["team/app"], None)
        assert (caught.value.cause, caught.value.status) == (Cause.AUTH, 401)


async def test_what_the_upstream_gave_for_less_ends_with_it(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        upstream.seconds = 100
        ticket = await given(authority, ALICE)
        assert ticket.until - trio.current_time() == pytest.approx(100)


async def test_what_is_half_used_is_given_anew(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        first = await given(authority, ALICE)
        assert (await given(authority, ALICE)).permits["team/app"] is first.permits["team/app"]
        assert upstream.seen.count("/token") == 1
        await trio.sleep(PROVEN_FOR - RENEWED_FROM)
        assert (await given(authority, ALICE)).permits["team/app"] is not first.permits["team/app"]


async def test_the_same_name_with_another_password_is_somebody_else(autojump_clock: MockClock) -> None:
    async with scene() as (_, authority):
        await prove(authority, await given(authority, ALICE))
        with pytest.raises(UpstreamError):
            await given(authority, Login("alice", "guessed"))


async def test_an_upstream_that_is_down_takes_nothing_that_was_proven(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        ticket = await given(authority, ALICE)
        await prove(authority, ticket)
        upstream.down = True
        await prove(authority, ticket)
        await trio.sleep(PROVEN_FOR - RENEWED_FROM + 1)
        again = await given(authority, ALICE)
        assert again.permits["team/app"].proven
        with pytest.raises(UpstreamError) as caught:
            await given(authority, BOB)
        assert caught.value.cause is Cause.SERVER
        await trio.sleep(RENEWED_FROM)
        with pytest.raises(UpstreamError):
            await given(authority, ALICE)


async def test_an_upstream_that_fails_proves_nothing(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        ticket = await given(authority, ALICE)
        upstream.down = True
        with pytest.raises(UpstreamError) as caught:
            await prove(authority, ticket)
        assert caught.value.cause is Cause.SERVER
        assert not ticket.permits["team/app"].proven


async def test_a_repository_that_can_be_read_is_proof_where_the_image_is_gone(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (upstream, authority):
        upstream.missing = {"/v2/team/app/manifests/latest"}
        await prove(authority, await given(authority, ALICE), ops.Manifest("team/app", "latest"))


async def test_what_is_not_there_at_all_proves_nothing(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        upstream.missing = {"/v2/team/app/manifests/latest", "/v2/team/app/tags/list"}
        ticket = await given(authority, ALICE)
        with pytest.raises(UpstreamError) as caught:
            await prove(authority, ticket, ops.Manifest("team/app", "latest"))
        assert caught.value.cause is Cause.MISSING
        assert not ticket.permits["team/app"].proven


async def test_a_login_to_whom_nothing_is_given_for_a_repository_gets_a_ticket_without_it(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (upstream, authority):
        upstream.forbidden = True
        assert (await given(authority, ALICE)).permits == {}


async def test_who_guesses_waits(autojump_clock: MockClock) -> None:
    async with scene() as (upstream, authority):
        for number in range(5):
            with pytest.raises(UpstreamError):
                await given(authority, Login("alice", str(number)))
        asked = len(upstream.seen)
        with pytest.raises(OCIError) as caught:
            await given(authority, ALICE)
        assert caught.value.status == 429
        assert len(upstream.seen) == asked
        await given(authority, BOB)


async def test_what_is_fetched_for_all_is_asked_for_with_what_proved_a_right(
    autojump_clock: MockClock,
) -> None:
    upstream = Upstream()
    async with scripted(upstream.answer, by_caller=True) as registry, trio.open_nursery() as nursery:
        authority = Authority(registry, Tickets(), nursery)
        ticket = await given(authority, ALICE)
        with pytest.raises(UpstreamError):
            await registry.head_manifest("team/app", "latest")
        await prove(authority, ticket)
        assert (await registry.head_manifest("team/app", "latest")).digest == DIGEST
        with pytest.raises(UpstreamError):
            await registry.head_manifest("team/other", "latest")
        await trio.sleep(PROVEN_FOR)
        with pytest.raises(UpstreamError):
            await registry.head_manifest("team/app", "latest")


async def test_so_many_are_kept_and_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "MOST", 3)
    async with scene() as (_, subject):
        texts = [(await subject.ticket(ALICE, [f"r{number}"], None))[0] for number in range(5)]
        assert [subject.find(text) is not None for text in texts] == [False, False, True, True, True]


def test_nothing_that_is_kept_shows_a_secret() -> None:
    tickets = Tickets()
    assert b"secret" not in tickets.mark(ALICE)
    assert "Bearer" not in repr(authority.Permit("Bearer x", 1.0))
    assert tickets.mark(ALICE) != Tickets().mark(ALICE)
    assert tickets.mark(None) != tickets.mark(Login("", ""))
