"""The keys of an issuer: which are believed, when they are fetched, and what holds when they cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from joserfc.jwk import ECKey, OctKey, RSAKey
from trio.testing import MockClock

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry import issuerkeys
from cacheproxy.registry.issuerkeys import BELIEVED, FRESH, PAUSE, Fetching, KeyRing, KeysUnavailable, parse
from tests.registry.issuer import EC, NAME, RSA, encoded, jwks
from tests.virtual import clock as clock


def test_public_keys_and_what_each_can_have_signed_with() -> None:
    keys = parse(jwks(RSA, EC))
    assert keys["ec"].algorithms == {"ES256"}
    assert keys["rsa"].algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def test_a_key_may_say_one_algorithm() -> None:
    assert parse(jwks(RSA, alg="RS256", use="sig"))["rsa"].algorithms == {"RS256"}


def with_other(written: Any) -> bytes:
    return json.dumps({"keys": [written, *json.loads(jwks(EC))["keys"]]}).encode()


def public(key: RSAKey | ECKey, **extra: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "other", **extra}


@pytest.mark.parametrize(
    "written",
    [
        OctKey.import_key("a shared secret of some length").as_dict() | {"kid": "other"},
        public(EC, use="enc"),
        public(EC, key_ops=["encrypt"]),
        public(EC, alg="RS256"),
        public(EC, alg="HS256"),
        public(RSA, alg="none"),
        public(RSA, n=encoded(b"\xff" * 128)),
        public(RSA, n=encoded(b"\xff" * 1025)),
        public(ECKey.generate_key("secp256k1")),
        {**EC.as_dict(private=False), "kid": None},
        {name: value for name, value in public(EC).items() if name != "kid"},
        public(EC, x="!"),
        public(EC, x="AAAA"),
        public(RSA, n=""),
        public(EC, crv="P-384"),
        public(RSA, kty="EC", crv="P-256"),
        {"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "other"},
        {"kty": "nothing", "kid": "other"},
        {},
        [],
        None,
        7,
    ],
)
def test_other_keys_are_passed_over(written: Any) -> None:
    assert parse(with_other(written)).keys() == {"ec"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is no JWK set"),
        (b"<html>", "is no JWK set"),
        (b"[]", "is no JWK set"),
        (b'{"keys": {}}', "is no JWK set"),
        (b"[" * 100_000, "is no JWK set"),
        (b'{"keys": []}', "has no key"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "1"}]}', "has no key"),
        (jwks(EC, EC), "two keys with the kid 'ec'"),
        (b'{"keys": [' + b",".join([b"{}"] * 65) + b"]}", "more than 64"),
    ],
)
def test_a_set_that_is_none(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


class Published:
    """The issuer's own document, as the daemon gets it."""

    def __init__(self) -> None:
        self.keys: bytes | Exception = jwks(EC)
        self.asked = 0
        self.seconds = 0.0

    async def fetch(self) -> bytes:
        self.asked += 1
        await trio.sleep(self.seconds)
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys


DOWN = UpstreamError(Cause.CONNECT, "cannot reach token.actions.example: refused", NAME)


class Rings:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.published, self.fetching = Published(), Fetching()
        self.ring = self.make(None)
        nursery.start_soon(self.fetching.run)

    def make(self, former: KeyRing | None) -> KeyRing:
        return KeyRing(NAME, self.published.fetch, self.fetching, trio.current_time, former)


@pytest.fixture
def rings(clock: MockClock, nursery: trio.Nursery) -> Rings:
    return Rings(nursery)


async def test_keys_are_fetched_by_the_first_token_and_kept(rings: Rings, clock: MockClock) -> None:
    for _ in range(3):
        assert await rings.ring.find("ec") is not None
    assert rings.published.asked == 1


async def test_all_who_wait_share_one_fetch(rings: Rings, clock: MockClock) -> None:
    rings.published.seconds = 5
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(rings.ring.find, "ec")
    assert rings.published.asked == 1


async def test_who_goes_away_takes_the_fetch_from_nobody(rings: Rings, clock: MockClock) -> None:
    rings.published.seconds = 5
    with trio.move_on_after(1):
        await rings.ring.find("ec")
    assert await rings.ring.find("ec") is not None
    assert rings.published.asked == 1


async def test_a_new_key_is_found_when_it_signs(rings: Rings, clock: MockClock) -> None:
    await rings.ring.find("ec")
    rings.published.keys = jwks(EC, RSA)
    await trio.sleep(PAUSE)
    assert await rings.ring.find("rsa") is not None


async def test_keys_that_nobody_has_do_not_make_it_ask_without_end(rings: Rings, clock: MockClock) -> None:
    began = trio.current_time()
    while trio.current_time() < began + 10 * PAUSE:
        assert await rings.ring.find(f"made-up-{trio.current_time()}") is None
        await trio.sleep(0.5)
    assert 9 <= rings.published.asked <= 11


async def test_a_key_that_is_no_longer_named_ends(rings: Rings, clock: MockClock) -> None:
    await rings.ring.find("ec")
    rings.published.keys = jwks(RSA)
    await trio.sleep(FRESH)
    await rings.ring.find("ec")  # is not waited for
    await trio.sleep(1)
    assert await rings.ring.find("ec") is None


async def test_known_keys_go_on_without_a_wait_while_the_issuer_is_down(
    rings: Rings, clock: MockClock
) -> None:
    await rings.ring.find("ec")
    rings.published.keys, rings.published.seconds = DOWN, 9
    for _ in range(20):
        await trio.sleep(FRESH)
        before = trio.current_time()
        assert await rings.ring.find("ec") is not None
        assert trio.current_time() == before
    assert rings.published.asked > 10


async def test_known_keys_do_not_go_on_for_ever(rings: Rings, clock: MockClock) -> None:
    await rings.ring.find("ec")
    rings.published.keys = DOWN
    await trio.sleep(BELIEVED)
    with pytest.raises(KeysUnavailable):
        await rings.ring.find("ec")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (DOWN, "cannot reach token.actions.example: refused"),
        (b"<html>", "what it sends is no JWK set"),
        (RuntimeError("a fault of ours"), "RuntimeError"),
    ],
)
async def test_without_any_key_it_says_why(
    rings: Rings, clock: MockClock, answer: bytes | Exception, words: str
) -> None:
    rings.published.keys = answer
    for _ in range(5):
        with pytest.raises(KeysUnavailable, match=words) as failed:
            await rings.ring.find("ec")
        assert failed.value.told.startswith(f"the keys of {NAME} cannot be fetched now")
    assert rings.published.asked == 1
    rings.published.keys = jwks(EC)
    await trio.sleep(PAUSE)
    assert await rings.ring.find("ec") is not None


async def test_an_unknown_key_is_not_judged_while_the_issuer_is_down(rings: Rings, clock: MockClock) -> None:
    await rings.ring.find("ec")
    rings.published.keys = DOWN
    await trio.sleep(PAUSE)
    with pytest.raises(KeysUnavailable):
        await rings.ring.find("rsa")


async def test_keys_outlive_a_reload_and_are_not_younger_by_it(rings: Rings, clock: MockClock) -> None:
    await rings.ring.find("ec")
    rings.published.keys = DOWN
    ring = rings.ring
    for _ in range(4):
        await trio.sleep(BELIEVED / 4 - 1)
        ring = rings.make(ring)
        assert await ring.find("ec") is not None
    await trio.sleep(10)
    with pytest.raises(KeysUnavailable):
        await ring.find("ec")


async def test_keys_of_a_file_are_all_there_are() -> None:
    pinned = issuerkeys.Pinned(parse(jwks(EC)))
    assert await pinned.find("ec") is not None
    assert await pinned.find("rsa") is None
