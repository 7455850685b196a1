"""Who sends a request, how long that is believed, and what a refusal tells."""

from __future__ import annotations

import ipaddress
from typing import cast

import pytest

from cacheproxy.api import callers as module
from cacheproxy.api.callers import TRUSTED_FOR, Callers, Identity
from cacheproxy.core.access import Access, Grant
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import ANONYMOUS, Principal, Right, Rule
from cacheproxy.edge.message import Address, ClientCertificate, Peer, Request
from cacheproxy.registry.grants import Grants, Standing
from cacheproxy.store.grants import GrantRows

NEAR, FAR = ipaddress.ip_address("10.0.0.9"), ipaddress.ip_address("192.0.2.1")
ACCESS = Access([Grant((ipaddress.ip_network("10.0.0.0/8"),), Patterns(("public/**",)))])
NET = (ipaddress.ip_network("10.0.0.0/8"),)
ALICE, PULL = frozenset({"user:alice"}), frozenset({Right.PULL})
RULES = [
    Rule(ALICE, PULL, Patterns(("team/**",))),
    Rule(ALICE, PULL, Patterns(("near/**",)), networks=NET),
    Rule(ALICE, PULL, Patterns(("team/not-near",)), deny=True, networks=NET),
    Rule(frozenset({ANONYMOUS}), PULL, Patterns(("open/**",)), networks=NET),
]


class Authenticator:
    def __init__(self) -> None:
        self.known = {"alice": Identity(Principal("user:alice"))}
        self.asked = 0

    async def identify(self, authorization: str, address: Address | None) -> Identity | None:
        self.asked += 1
        return self.known.get(authorization)

    async def certificate(self, shown: ClientCertificate) -> Identity | None:
        return None


class Desk(Callers):
    def __init__(self, authenticator: Authenticator | None, url: str = "") -> None:
        self.now, self.age = 1e9, 0.0
        self.grants = Grants(cast("GrantRows", None), lambda: self.now)
        standing = Standing(RULES, self.grants)
        super().__init__(ACCESS, standing, authenticator, url, lambda: self.now, lambda: self.age)


@pytest.fixture
def accounts() -> Authenticator:
    return Authenticator()


@pytest.fixture
def desk(accounts: Authenticator) -> Desk:
    return Desk(accounts)


def request(who: str = "", address: Address | None = NEAR, *, stranger: bool = False) -> Request:
    async def no_body(_: int) -> bytes:
        return b""

    headers = {"host": "cache.test"} | ({"authorization": who} if who else {})
    peer = Peer(address, "https", forwarded_by_stranger=stranger)
    return Request("GET", "/v2/", headers, peer, "id", no_body)


def challenge(error: OCIError) -> str:
    assert error.status == 401
    return dict(error.headers)["WWW-Authenticate"]


async def test_who_gives_no_name_may_what_its_network_may(desk: Desk) -> None:
    near, far = await desk.identify(request()), await desk.identify(request(address=FAR))
    assert (near.name, near.may(Right.PULL, "public/a"), near.may(Right.PULL, "team/a")) == (
        "anonymous",
        True,
        False,
    )
    assert not far.may(Right.PULL, "public/a")


async def test_who_comes_by_a_strangers_proxy_has_no_network(desk: Desk) -> None:
    caller = await desk.identify(request(stranger=True))
    assert not caller.may(Right.PULL, "public/a")


async def test_who_has_a_name_may_what_its_network_may_too(desk: Desk) -> None:
    caller = await desk.identify(request("alice"))
    assert caller.may(Right.PULL, "public/a")
    assert caller.may(Right.PULL, "team/a")
    elsewhere = await desk.identify(request("alice", FAR))
    assert not elsewhere.may(Right.PULL, "public/a")
    assert elsewhere.may(Right.PULL, "team/a")


async def test_a_proof_is_believed_for_a_minute(desk: Desk, accounts: Authenticator) -> None:
    for _ in range(2):
        await desk.identify(request("alice"))
    assert accounts.asked == 1
    desk.now -= 2 * TRUSTED_FOR  # somebody sets the wall's clock back
    desk.age += TRUSTED_FOR
    accounts.known.clear()
    with pytest.raises(OCIError) as caught:
        await desk.identify(request("alice"))
    assert 'error="invalid_token"' in challenge(caught.value)


async def test_what_changed_is_believed_at_once(desk: Desk, accounts: Authenticator) -> None:
    await desk.identify(request("alice"))
    accounts.known.clear()
    desk.grants.changed()
    assert desk.known(request("alice").headers, Peer(NEAR, "https")) is None
    with pytest.raises(OCIError):
        await desk.identify(request("alice"))


async def test_who_was_looked_up_while_something_changed_is_believed_once(
    desk: Desk, accounts: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def identify(authorization: str, address: Address | None) -> Identity | None:
        desk.grants.changed()
        return Identity(Principal("user:alice"))

    monkeypatch.setattr(accounts, "identify", identify)
    assert (await desk.identify(request("alice"))).name == "user:alice"
    assert desk.known(request("alice").headers, Peer(NEAR, "https")) is None


async def test_rules_change_for_who_gives_no_name_too(desk: Desk) -> None:
    assert not (await desk.identify(request())).may(Right.PULL, "more/a")
    desk.grants.rules = (Rule(frozenset({ANONYMOUS}), PULL, Patterns(("more/**",)), networks=NET),)
    desk.grants.changed()
    assert (await desk.identify(request())).may(Right.PULL, "more/a")
    assert not (await desk.identify(request(address=FAR))).may(Right.PULL, "more/a")


@pytest.mark.parametrize("who", ["alice", ""])
async def test_a_rule_of_a_network_holds_there_only(desk: Desk, who: str) -> None:
    near, far = await desk.identify(request(who)), await desk.identify(request(who, FAR))
    place = "near/a" if who else "open/a"
    assert (near.may(Right.PULL, place), far.may(Right.PULL, place)) == (True, False)


async def test_of_who_comes_by_a_strangers_proxy_networks_only_take(desk: Desk) -> None:
    lost = await desk.identify(request("alice", stranger=True))
    near, far = await desk.identify(request("alice")), await desk.identify(request("alice", FAR))
    assert [caller.may(Right.PULL, "team/not-near") for caller in (lost, near, far)] == [False, False, True]
    assert lost.may(Right.PULL, "team/a")
    assert not lost.may(Right.PULL, "near/a")
    assert not (await desk.identify(request(stranger=True))).may(Right.PULL, "open/a")


async def test_a_token_is_not_believed_beyond_its_end(desk: Desk, accounts: Authenticator) -> None:
    accounts.known["token"] = Identity(None, {}, until=desk.now + 5)
    await desk.identify(request("token"))
    desk.now += 5
    assert desk.known(request("token").headers, Peer(NEAR, "https")) is None


async def test_what_proves_nothing_is_not_remembered(desk: Desk, accounts: Authenticator) -> None:
    for _ in range(2):
        with pytest.raises(OCIError):
            await desk.identify(request("guess"))
    assert accounts.asked == 2


async def test_no_more_are_remembered_than_there_is_room_for(
    desk: Desk, accounts: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    for number in range(5):
        accounts.known[f"{number}"] = Identity(Principal(f"user:{number}"))
        await desk.identify(request(f"{number}"))
        await desk.identify(request(address=ipaddress.ip_address(f"10.0.0.{number}")))
        assert len(desk._by_credentials) <= 2
        assert len(desk._by_address) <= 2


async def test_without_accounts_credentials_are_not_looked_at() -> None:
    desk = Desk(None)
    asked = request("whatever")
    assert (await desk.identify(asked)).name == "anonymous"
    assert not desk.challenges(asked)
    refused = desk.refusal(asked, await desk.identify(asked), Right.PULL, "team/a")
    assert (refused.code, refused.status) == ("DENIED", 403)


async def test_a_ping_is_challenged_unless_it_has_credentials(desk: Desk) -> None:
    assert desk.challenges(request())
    assert not desk.challenges(request("alice"))
    told = challenge(desk.challenge(request()))
    assert told == 'Bearer realm="https://cache.test/token",service="cache.test"'


async def test_the_realm_is_where_the_operator_says() -> None:
    told = challenge(Desk(Authenticator(), "https://out.test/x").challenge(request()))
    assert 'realm="https://out.test/x/token"' in told


@pytest.mark.parametrize(
    ("right", "actions"),
    [(Right.PULL, "pull"), (Right.PUSH, "pull,push"), (Right.CREATE, "pull,push"), (Right.DELETE, "delete")],
)
async def test_who_gives_no_name_hears_what_to_ask_a_token_for(
    desk: Desk, right: Right, actions: str
) -> None:
    asked = request()
    told = challenge(desk.refusal(asked, await desk.identify(asked), right, "team/a"))
    assert told.endswith(f'scope="repository:team/a:{actions}"')
    assert "error=" not in told


async def test_a_token_that_is_not_enough_says_so(desk: Desk, accounts: Authenticator) -> None:
    accounts.known["token"] = Identity(Principal("user:alice"), {})
    asked = request("token")
    caller = await desk.identify(asked)
    assert not caller.may(Right.PULL, "team/a")
    told = challenge(desk.refusal(asked, caller, Right.PULL, "team/a"))
    assert 'error="insufficient_scope"' in told


async def test_who_logged_in_and_may_not_is_not_asked_to_log_in(desk: Desk) -> None:
    asked = request("alice")
    refused = desk.refusal(asked, await desk.identify(asked), Right.PUSH, "team/a")
    assert (refused.code, refused.status) == ("DENIED", 403)
    assert "user:alice may not push in team/a" in refused.message
