"""Every route by every method with every right: who gets in, and who does not. The table is written out here
once more, since a check against the door's own would agree with any mistake in it."""

from __future__ import annotations

import ipaddress
from itertools import product
from typing import Any, cast

import pytest

from cacheproxy.api.callers import Callers, Identity
from cacheproxy.api.dispatch import Door
from cacheproxy.api.distribution import Distribution
from cacheproxy.api.hosting import Hosted
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.core.access import Access, Grant
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal, Right, Rule
from cacheproxy.core.routing import Routes
from cacheproxy.core.scopes import EVERYWHERE
from cacheproxy.edge.message import ClientCertificate, Peer, Request, Response
from cacheproxy.registry.grants import Standing

TEAM, OTHER = "team/app", "team/other"
DIGEST = f"sha256:{'0' * 64}"
ROUTES = {
    "manifest by tag": f"/v2/{TEAM}/manifests/latest",
    "manifest by digest": f"/v2/{TEAM}/manifests/{DIGEST}",
    "blob": f"/v2/{TEAM}/blobs/{DIGEST}",
    "uploads": f"/v2/{TEAM}/blobs/uploads/",
    "upload": f"/v2/{TEAM}/blobs/uploads/{'0' * 32}",
    "tags": f"/v2/{TEAM}/tags/list",
    "referrers": f"/v2/{TEAM}/referrers/{DIGEST}",
}
METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
READ = {"GET": Right.PULL, "HEAD": Right.PULL}
NEEDED: dict[str, dict[str, Right]] = {
    "manifest by tag": {**READ, "PUT": Right.PUSH, "DELETE": Right.DELETE},
    "manifest by digest": {**READ, "PUT": Right.PUSH, "DELETE": Right.DELETE},
    "blob": {**READ, "DELETE": Right.DELETE},
    "uploads": {"POST": Right.PUSH},
    "upload": dict.fromkeys(("GET", "HEAD", "PATCH", "PUT", "DELETE"), Right.PUSH),
    "tags": READ,
    "referrers": READ,
}
ALICE, MALLORY = Principal("user:alice"), Principal("user:mallory")
ALL = frozenset(Right)
NEAR, FAR = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("192.0.2.1")
ADMITTED = 299
CASES = [*product(ROUTES, METHODS, Right)]


class Admitting:
    """A hosted side that says who got as far as it."""

    async def has(self, name: str) -> bool:
        return name in (TEAM, OTHER)

    async def answer(self, *_: Any) -> Response:
        return Response(ADMITTED)

    async def manifest(self, *_: Any) -> Any:
        raise OCIError("MANIFEST_UNKNOWN", status=ADMITTED)

    async def catalog(self, *_: Any) -> Response:
        return Response(ADMITTED)


class Known:
    """Whoever says so is what the test made of it."""

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    async def identify(self, authorization: str, address: object) -> Identity | None:
        return self._identity

    async def certificate(self, shown: ClientCertificate) -> Identity | None:
        return self._identity


def door(rules: list[Rule], identity: Identity | None = None) -> Door:
    access = Access([Grant((ipaddress.ip_network("10.0.0.0/8"),), Patterns(("team/**",)))])
    callers = Callers(access, Standing(rules), Known(identity), "", lambda: 0.0)
    hosted = cast("Hosted", Admitting())
    return Door(Routes([]), callers, Distribution(*[cast("Any", None)] * 3), hosted, ReadyAnswers(), "us-1")


async def ask(door: Door, method: str, target: str, address: Any = FAR, anonymous: bool = False) -> int:
    async def no_body(_: int) -> bytes:
        return b""

    headers = {"host": "cache.example", **({} if anonymous else {"authorization": "Bearer x"})}
    request = Request(method, target, headers, Peer(address, "http"), "0" * 16, no_body)
    response = await door.handle(request)
    if response.status == 401:
        (challenge,) = [value for name, value in response.headers if name == "WWW-Authenticate"]
        assert challenge.startswith("Bearer realm=")
    return response.status


def rule(principal: Principal, rights: frozenset[Right], *repositories: str, deny: bool = False) -> Rule:
    return Rule(frozenset({principal.name}), rights, Patterns(repositories), deny)


def expected(route: str, method: str, rights: frozenset[Right], refused: int) -> int:
    needed = NEEDED[route].get(method)
    if needed is None:
        return 405
    return ADMITTED if needed in rights else refused


@pytest.mark.parametrize(("route", "method", "right"), CASES)
async def test_a_right_opens_its_routes_and_no_other(route: str, method: str, right: Right) -> None:
    only = rule(ALICE, frozenset({right}), TEAM)
    status = await ask(door([only], Identity(ALICE)), method, ROUTES[route])
    assert status == expected(route, method, frozenset({right}), 403)


@pytest.mark.parametrize(("route", "method", "right"), CASES)
async def test_what_is_denied_stays_shut_whatever_else_allows_it(
    route: str, method: str, right: Right
) -> None:
    denied = rule(ALICE, frozenset({right}), TEAM, deny=True)
    status = await ask(door([rule(ALICE, ALL, "**"), denied], Identity(ALICE)), method, ROUTES[route])
    assert status == expected(route, method, ALL - {right}, 403)


@pytest.mark.parametrize(("route", "method", "right"), CASES)
async def test_a_token_opens_what_it_is_for_and_no_more(route: str, method: str, right: Right) -> None:
    scope = {TEAM: frozenset({right}), OTHER: ALL, EVERYWHERE: frozenset({Right.LIST})}
    status = await ask(door([rule(ALICE, ALL, "**")], Identity(ALICE, scope)), method, ROUTES[route])
    assert status == expected(route, method, frozenset({right}), 401)


@pytest.mark.parametrize(("route", "method"), [*product(ROUTES, METHODS)])
async def test_a_token_gives_nothing_that_the_rules_do_not(route: str, method: str) -> None:
    scope = {TEAM: ALL, OTHER: ALL}
    for who in (MALLORY, None):
        status = await ask(door([rule(ALICE, ALL, "**")], Identity(who, scope)), method, ROUTES[route])
        assert status == expected(route, method, frozenset(), 401)


@pytest.mark.parametrize(("route", "method"), [*product(ROUTES, METHODS)])
async def test_without_a_name_a_network_may_read_and_never_write(route: str, method: str) -> None:
    rules = [rule(ALICE, ALL, "**"), Rule(frozenset({"*"}), ALL, Patterns(("**",)))]
    near = await ask(door(rules), method, ROUTES[route], NEAR, anonymous=True)
    far = await ask(door(rules), method, ROUTES[route], FAR, anonymous=True)
    assert near == expected(route, method, frozenset({Right.PULL}), 401)
    assert far == expected(route, method, frozenset(), 401)


@pytest.mark.parametrize(("route", "method"), [*product(ROUTES, METHODS)])
async def test_credentials_that_prove_nothing_open_nothing(route: str, method: str) -> None:
    status = await ask(door([rule(ALICE, ALL, "**")]), method, ROUTES[route], NEAR)
    assert status == (405 if method not in NEEDED[route] else 401)


@pytest.mark.parametrize("target", ["/v2/", "/v2/_catalog"])
async def test_what_is_no_repository_s_is_for_who_may_anything_at_all(target: str) -> None:
    some = [rule(ALICE, frozenset({Right.PULL}), "somewhere/**")]
    assert await ask(door(some, Identity(ALICE)), "GET", target) in (200, ADMITTED)
    assert await ask(door(some, Identity(MALLORY)), "GET", target) == 403
    assert await ask(door(some, Identity(None, {})), "GET", target) == 401
    assert await ask(door(some), "GET", target, anonymous=True) == 401
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        assert await ask(door(some, Identity(ALICE)), method, target) == 405
