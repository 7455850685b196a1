"""What is believed, and what is not: the attacks that token servers fell to (CVE-2025-24976 and its kin)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from cacheproxy.core.scopes import Token
from cacheproxy.registry.tokens import AUDIENCE, ISSUER, LEEWAY, Tokens

NOW = 1_800_000_000.0
OURS, OTHER = ECKey.generate_key("P-256", {"kid": "ours"}), ECKey.generate_key("P-256", {"kid": "ours"})
PULL = {"team/app": frozenset({"pull"})}
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "user:alice",
    "iat": int(NOW),
    "nbf": int(NOW),
    "exp": int(NOW) + 600,
    "jti": "1",
    "access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}],
}
HEADER = {"alg": "ES256", "typ": "JWT", "kid": "ours"}


class OneKey:
    current = OURS

    def find(self, kid: str) -> ECKey | None:
        return OURS if kid == "ours" else None


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(OneKey(), 600.0, clock)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: Any = CLAIMS, header: dict[str, Any] = HEADER, key: ECKey = OURS) -> str:
    """A token with a good signature, whatever it says: the registry of headers is not asked."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signing = f"{encoded(json.dumps(header).encode())}.{encoded(payload)}"
    algorithm = jws.default_registry.algorithms["ES256"]
    return f"{signing}.{encoded(algorithm.sign(signing.encode(), key))}"


def test_what_was_issued_is_believed(tokens: Tokens) -> None:
    text, token = tokens.issue("user:alice", PULL)
    assert tokens.verify(text) == token == Token("user:alice", PULL, NOW, NOW + 600)


def test_a_token_may_be_for_nobody_by_name(tokens: Tokens) -> None:
    text, _ = tokens.issue(None, {})
    said = tokens.verify(text)
    assert said is not None
    assert said.subject is None


def test_the_tests_own_signature_is_believed(tokens: Tokens) -> None:
    assert tokens.verify(signed()) == Token("user:alice", PULL, NOW, NOW + 600)


def test_a_token_ends(tokens: Tokens, clock: Clock) -> None:
    text, _ = tokens.issue("user:alice", PULL)
    clock.now = NOW + 599 + LEEWAY
    assert tokens.verify(text) is not None
    clock.now = NOW + 600 + LEEWAY
    assert tokens.verify(text) is None


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


def unsigned(algorithm: str) -> str:
    header = {**HEADER, "alg": algorithm}
    return f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(CLAIMS).encode())}."


def public_key_as_secret() -> str:
    signing = unsigned("HS256").removesuffix(".")
    mac = hmac.new(OURS.as_pem(private=False), signing.encode(), hashlib.sha256).digest()
    return f"{signing}.{encoded(mac)}"


HEADERS: dict[str, dict[str, Any]] = {
    "unknown kid": {**HEADER, "kid": "other"},
    "kid that escapes": {**HEADER, "kid": "../ours"},
    "kid of another type": {**HEADER, "kid": ["ours"]},
    "no kid": {"alg": "ES256", "typ": "JWT"},
    "its own key": {**HEADER, "jwk": OTHER.as_dict(private=False)},
    "a key by address": {**HEADER, "jku": "http://127.0.0.1/keys"},
    "a certificate by address": {**HEADER, "x5u": "http://127.0.0.1/cert"},
    "a certificate": {**HEADER, "x5c": ["AAAA"]},
    "critical": {**HEADER, "crit": ["b64"], "b64": False},
    "unencoded": {**HEADER, "b64": False},
    "another algorithm": {**HEADER, "alg": "ES512"},
    "HMAC": {**HEADER, "alg": "HS256"},
    "none": {**HEADER, "alg": "none"},
    "long": {**HEADER, "typ": "J" * 300},
}
BODIES: dict[str, Any] = {
    **{f"no {name}": without(name) for name in CLAIMS},
    "another issuer": {**CLAIMS, "iss": "other"},
    "another audience": {**CLAIMS, "aud": "other"},
    "a list of audiences": {**CLAIMS, "aud": [AUDIENCE, "other"]},
    "exp as text": {**CLAIMS, "exp": str(int(NOW) + 600)},
    "exp as a fraction": {**CLAIMS, "exp": NOW + 600.5},
    "exp without end": json.dumps(CLAIMS).replace(str(int(NOW) + 600), "1e400").encode(),
    "exp beyond numbers": {**CLAIMS, "exp": 10**400},
    "over": {**CLAIMS, "exp": int(NOW) - 31},
    "not yet": {**CLAIMS, "nbf": int(NOW) + 31},
    "of tomorrow": {**CLAIMS, "iat": int(NOW) + 86400},
    "a claim too many": {**CLAIMS, "admin": True},
    "access of another shape": {**CLAIMS, "access": {"team/app": ["pull"]}},
    "deep": b"[" * 5000 + b"]" * 5000,
    "no JSON": b"\xff\xfe",
    "no object": b"[]",
}
TEXTS: dict[str, str] = {
    "empty": "",
    "two dots": "..",
    "four parts": signed() + ".x",
    "five parts of an encrypted one": "a.b.c.d.e",
    "no signature": signed().rpartition(".")[0] + ".",
    "short signature": signed()[:-8],
    "another key by the same name": signed(key=OTHER),
    "a public key as a secret": public_key_as_secret(),
    **{f"alg {each}": unsigned(each) for each in ("none", "None", "nOnE", "")},
    "too long": signed({**CLAIMS, "jti": "1" * 8192}),
    "a header that is no JSON": "!!!." + signed().partition(".")[2],
    "a header that is no object": encoded(b"[]") + "." + signed().partition(".")[2],
    "a deep header": encoded(b"[" * 120) + "." + signed().partition(".")[2],
    "not ASCII": "é" + signed(),
    "another body": ".".join((signed().split(".")[0], encoded(b"{}"), signed().split(".")[2])),
}
ATTACKS = {
    **{f"header: {name}": signed(header=header) for name, header in HEADERS.items()},
    **{f"claims: {name}": signed(claims) for name, claims in BODIES.items()},
    **TEXTS,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_else_is_believed_and_soon(tokens: Tokens, attack: str) -> None:
    started = time.process_time()
    assert tokens.verify(attack) is None
    assert time.process_time() - started < 0.05
