"""Callers by the certificate of their connection: remembered, ended, and never taken for a header."""

from __future__ import annotations

import ipaddress

import pytest

from cacheproxy.api.callers import TRUSTED_FOR, Callers, Identity
from cacheproxy.core.access import Access
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal, Right, Rule
from cacheproxy.edge.message import Address, ClientCertificate, Peer, Request
from cacheproxy.registry.federation import Refused
from cacheproxy.registry.grants import Standing

NEAR = ipaddress.ip_address("10.0.0.9")
RULES = [Rule(frozenset({"host:a"}), frozenset({Right.PULL}), Patterns(("team/**",)))]
SHOWN = ClientCertificate("f" * 64, "CN=a", (("CN", "a"),), 2e9)


class Authenticator:
    def __init__(self) -> None:
        self.identity: Identity | None = Identity(Principal("host:a"), until=1e9 + 1000)
        self.refused = ""
        self.asked: list[str] = []

    async def identify(self, authorization: str, address: Address | None) -> Identity | None:
        self.asked.append(authorization)
        return Identity(Principal("user:alice")) if authorization == "alice" else None

    async def certificate(self, shown: ClientCertificate) -> Identity | None:
        self.asked.append(shown.subject)
        if self.refused:
            raise Refused(self.refused)
        return self.identity


class Desk(Callers):
    def __init__(self, authenticator: Authenticator | None) -> None:
        self.now = 1e9
        standing = Standing(RULES)
        super().__init__(Access([]), standing, authenticator, "", lambda: self.now, lambda: self.now)


@pytest.fixture
def who() -> Authenticator:
    return Authenticator()


@pytest.fixture
def desk(who: Authenticator) -> Desk:
    return Desk(who)


def request(authorization: str = "", shown: ClientCertificate | None = SHOWN) -> Request:
    async def no_body(_: int) -> bytes:
        return b""

    headers = {"host": "cache.test"} | ({"authorization": authorization} if authorization else {})
    return Request("GET", "/v2/", headers, Peer(NEAR, "https", certificate=shown), "id", no_body)


async def test_a_certificate_is_a_name_with_rights(desk: Desk) -> None:
    caller = await desk.identify(request())
    assert (caller.name, caller.may(Right.PULL, "team/a"), caller.scoped) == ("host:a", True, False)
    assert not desk.challenges(request())
    refused = desk.refusal(request(), caller, Right.PUSH, "team/a")
    assert (refused.status, "host:a may not push" in refused.message) == (403, True)


async def test_a_certificate_is_remembered_for_a_minute_and_not_beyond_its_end(
    desk: Desk, who: Authenticator
) -> None:
    for _ in range(3):
        await desk.identify(request())
    assert who.asked == ["CN=a"]
    assert desk.known(request().headers, request().peer) is not None
    desk.now += TRUSTED_FOR
    await desk.identify(request())
    assert who.asked == ["CN=a"] * 2
    who.identity = Identity(Principal("host:a"), until=desk.now + 65)
    desk.now += 60
    await desk.identify(request())
    desk.now += 5
    assert desk.known(request().headers, request().peer) is None


async def test_a_header_counts_before_the_certificate(desk: Desk, who: Authenticator) -> None:
    assert (await desk.identify(request("alice"))).name == "user:alice"
    with pytest.raises(OCIError) as refused:
        await desk.identify(request("wrong"))
    assert refused.value.status == 401
    assert who.asked == ["alice", "wrong"]


@pytest.mark.parametrize("guess", [SHOWN.fingerprint, f"certificate {SHOWN.fingerprint}", "certificate"])
async def test_a_header_is_never_taken_for_a_certificate(desk: Desk, who: Authenticator, guess: str) -> None:
    await desk.identify(request())
    assert desk.known({"authorization": guess}, Peer(NEAR, "https")) is None
    with pytest.raises(OCIError):
        await desk.identify(request(guess, None))


async def test_who_is_refused_hears_why_and_is_not_remembered(desk: Desk, who: Authenticator) -> None:
    who.refused = "the client certificate CN=a is of user:a, and there is no such account"
    for _ in range(2):
        with pytest.raises(OCIError, match="there is no such account") as refused:
            await desk.identify(request())
        assert refused.value.status == 401
    assert len(who.asked) == 2


async def test_a_certificate_of_nobody_is_not_anonymous(desk: Desk, who: Authenticator) -> None:
    who.identity = None
    with pytest.raises(OCIError) as refused:
        await desk.identify(request())
    assert refused.value.status == 401


async def test_without_accounts_a_certificate_means_nothing() -> None:
    desk = Desk(None)
    assert (await desk.identify(request())).name == "anonymous"
