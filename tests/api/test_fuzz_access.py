"""Whatever is sent as scopes, as credentials, or as a form: an answer that is no fault of ours, and never
more than the rules give."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any, cast
from urllib.parse import quote

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from cacheproxy.api.callers import Callers
from cacheproxy.api.credentials import Credentials
from cacheproxy.api.dispatch import Door
from cacheproxy.api.distribution import Distribution
from cacheproxy.api.hosting import Hosted
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.api.tokens import TokenServer
from cacheproxy.core.access import Access, Grant
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal, Right, Rule
from cacheproxy.core.routing import Routes, UpstreamRoute
from cacheproxy.core.scopes import rights_of
from cacheproxy.edge.message import Peer, Request, Response
from cacheproxy.registry.accounts import Account, Accounts
from cacheproxy.registry.grants import Standing
from cacheproxy.registry.refresh import RefreshTokens
from cacheproxy.registry.tokens import Tokens
from cacheproxy.store.tokens import TokenRows
from tests.api.test_rights import ADMITTED, Admitting

patient = settings(deadline=None)
"""A busy machine is no fault."""

FAR = ipaddress.ip_address("192.0.2.1")
KEY = ECKey.generate_key("P-256", {"kid": "1"})
ALICE = Principal("user:alice", frozenset({"team"}))
SECRET = "correct horse"
RULES = [
    Rule(frozenset({"group:team"}), frozenset(Right) - {Right.ADMIN}, Patterns(("team/**",))),
    Rule(frozenset({"user:alice"}), frozenset({Right.PULL}), Patterns(("hub/library/**",))),
    Rule(frozenset({"*"}), frozenset({Right.DELETE}), Patterns(("team/kept",)), deny=True),
]
PLACES = ("team/app", "team/kept", "team/other", "other/app", "hub/library/alpine", "*", "**", "team/*", "")
REFUSED = {400, 401, 403, 404, 405, 429}


class OneKey:
    current = KEY

    def find(self, kid: str) -> ECKey | None:
        return KEY if kid == "1" else None


class NoRows:
    """Refresh tokens of nobody."""

    async def whose(self, hashed: str, now: float) -> str | None:
        return None

    async def remember(self, *_: Any) -> None:
        pass


class House:
    """Made anew for each example: who guesses is remembered."""

    def __init__(self) -> None:
        def now() -> float:
            return 1_800_000_000.0

        routes = Routes([UpstreamRoute("docker.io", "hub", (), library=True, default=True)])
        accounts = Accounts([Account("alice", SECRET, ALICE.groups)])
        self.tokens = Tokens(OneKey(), 600.0, now)
        self.standing = Standing(RULES)
        credentials = Credentials(accounts, self.tokens)
        access = Access([Grant((ipaddress.ip_network("10.0.0.0/8"),), Patterns(("public/**",)))])
        self.callers = Callers(access, self.standing, credentials, "", now)
        refresh = RefreshTokens(cast("TokenRows", NoRows()), accounts, 3600.0, now)
        server = TokenServer(self.tokens, refresh, credentials, self.callers, routes)
        distribution = Distribution(*[cast("Any", None)] * 3)
        hosted = cast("Hosted", Admitting())
        self.door = Door(routes, self.callers, distribution, hosted, ReadyAnswers(), "us", now, server)

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Response:
        async def read(_: int) -> bytes:
            return body

        request = Request(method, target, {"host": "h", **headers}, Peer(FAR, "http"), "id", read)
        return trio.run(self.door.handle, request)

    def holds_no_more_than_the_rules(self, response: Response) -> None:
        """What a token says, and what it opens."""
        assert isinstance(response.body, bytes)
        text = msgspec.json.decode(response.body)["token"]
        token = self.tokens.verify(text)
        assert token is not None
        assert token.subject == "user:alice"
        for repository, actions in token.actions.items():
            rights = self.standing.rules.rights(ALICE, repository)
            # "push" is also to create, which is asked for again when it comes to it.
            assert repository == "*" or rights_of(actions) - {Right.CREATE} <= rights, (repository, actions)
        headers = {"host": "h", "authorization": f"Bearer {text}"}
        request = Request("GET", "/v2/", headers, Peer(FAR, "http"), "id", cast("Any", None))
        caller = trio.run(self.callers.identify, request)
        for place in PLACES:
            given = {right for right in Right if caller.may(right, place)}
            assert given <= self.standing.rules.rights(ALICE, place), place


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


LOGIN = basic(f"alice:{SECRET}")

kinds = st.sampled_from(["repository", "registry", "Repository", "repository(plugin)", "", "*", "repo:x"])
names = st.one_of(
    st.sampled_from([*PLACES, "catalog", "docker.io/library/alpine", "h:5000/team/app", "a/../team/app"]),
    st.sampled_from(["TEAM/app", "team//app", "/team/app", "team/app/", "x" * 300, "team/app\n", "\u0661/a"]),
    st.text(max_size=30),
)
actions = st.one_of(
    st.lists(st.sampled_from(["pull", "push", "delete", "list", "*", "PULL", "admin", "create", ""])).map(
        ",".join
    ),
    st.text(max_size=20),
)
scopes = st.one_of(st.tuples(kinds, names, actions).map(":".join), st.text(max_size=60))
good_scopes = st.tuples(
    st.just("repository"),
    st.sampled_from(["team/app", "team/kept", "other/app", "alpine", "hub/library/alpine"]),
    st.sets(st.sampled_from(["pull", "push", "delete", "list", "*", "admin"])).map(",".join),
).map(":".join)
asked = st.one_of(
    st.lists(good_scopes, max_size=8),
    st.lists(st.one_of(scopes, good_scopes), max_size=8),
    st.tuples(scopes, st.integers(2, 150)).map(lambda pair: [pair[0]] * pair[1]),
)


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"))


@patient
@given(asked, st.sampled_from([" ", "&scope="]))
def test_scopes_get_what_the_rules_give_or_a_refusal(asked: list[str], between: str) -> None:
    house = House()
    query = "scope=" + (between if between != " " else "%20").join(map(encoded, asked))
    response = house.ask("GET", f"/token?{query}", LOGIN)
    assert response.status in {200, 400}
    if response.status == 200:
        house.holds_no_more_than_the_rules(response)


@patient
@given(asked)
def test_a_form_gets_what_the_rules_give_or_a_refusal(asked: list[str]) -> None:
    house = House()
    fields = {"grant_type": "password", "username": "alice", "password": SECRET, "scope": " ".join(asked)}
    body = "&".join(f"{name}={encoded(value)}" for name, value in fields.items()).encode()
    response = house.ask("POST", "/token", {}, body)
    assert response.status in {200, 400}
    if response.status == 200:
        house.holds_no_more_than_the_rules(response)


@patient
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=200))
def test_any_query_gets_an_answer(query: str) -> None:
    assert House().ask("GET", f"/token?{query}", LOGIN).status in {200, 400}
    assert House().ask("HEAD", f"/token?{query}", {}).status in {400, 401}


fields = st.sampled_from(
    ["grant_type", "username", "password", "refresh_token", "scope", "service", "access_type"]
)
forms = st.one_of(
    st.binary(max_size=300),
    st.lists(st.tuples(fields, st.text(max_size=30)), max_size=8).map(
        lambda pairs: "&".join(f"{name}={encoded(value)}" for name, value in pairs).encode()
    ),
)


@patient
@given(forms)
def test_any_form_gets_an_answer(body: bytes) -> None:
    assert House().ask("POST", "/token", {}, body).status in {400, 401}


values = st.one_of(
    st.text(st.characters(max_codepoint=0xFF), max_size=80),
    st.binary(max_size=80).map(lambda data: f"Basic {base64.b64encode(data).decode()}"),
    st.tuples(
        st.sampled_from(["Basic ", "basic  ", "BEARER ", "Bearer ", "Digest ", ""]), st.text(max_size=60)
    ).map("".join),
    st.tuples(st.text(max_size=20), st.text(max_size=20)).map(
        lambda pair: f"Basic {base64.b64encode(':'.join(pair).encode('utf-8', 'surrogatepass')).decode()}"
    ),
    st.integers(8180, 70_000).map(lambda length: f"Basic {'A' * length}"),
    st.integers(1, 9000).map(lambda length: f"Bearer {'.' * length}"),
)
requests = st.sampled_from(
    [
        ("GET", "/token?scope=repository:team/app:pull"),
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/team/app/manifests/latest"),
        ("DELETE", "/v2/team/app/manifests/latest"),
        ("POST", "/v2/team/app/blobs/uploads/"),
    ]
)


@patient
@given(requests, values)
def test_any_authorization_is_refused_that_proves_nothing(request: tuple[str, str], value: str) -> None:
    response = House().ask(*request, {"authorization": value})
    assert response.status in REFUSED, (response.status, response.body)


def test_the_right_login_is_admitted() -> None:
    assert House().ask("GET", "/v2/team/app/manifests/latest", LOGIN).status == ADMITTED


TAGS = "/v2/team/app/manifests/latest"


@patient
@given(st.integers(0, 1000), st.characters(min_codepoint=0x21, max_codepoint=0x7E), st.booleans())
def test_a_token_that_was_changed_opens_nothing(at: int, character: str, longer: bool) -> None:
    house = House()
    text, _ = house.tokens.issue("user:alice", {"team/app": frozenset({"pull"})})
    at %= text.rindex(".")
    changed = text[:at] + character + text[at + (not longer) :]
    status = house.ask("GET", TAGS, {"authorization": f"Bearer {changed}"}).status
    assert status == (ADMITTED if changed == text else 401)


@patient
@given(st.integers(0, 511))
def test_nor_does_one_with_another_signature(bit: int) -> None:
    house = House()
    text, _ = house.tokens.issue("user:alice", {"team/app": frozenset({"pull"})})
    signed, _, signature = text.rpartition(".")
    number = int.from_bytes(base64.urlsafe_b64decode(signature + "==")) ^ 1 << bit
    other = base64.urlsafe_b64encode(number.to_bytes(64)).decode().rstrip("=")
    assert house.ask("GET", TAGS, {"authorization": f"Bearer {signed}.{other}"}).status == 401
    assert house.ask("GET", TAGS, {"authorization": f"Bearer {text}"}).status == ADMITTED
