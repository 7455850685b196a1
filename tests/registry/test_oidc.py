"""Tokens of issuers: what is believed, and attacks on those who believe (RFC 8725; CVE-2025-24976)."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.core.credentials import MAX_CREDENTIALS
from cacheproxy.core.subjects import Subjects, Template
from cacheproxy.registry.federation import Refused
from cacheproxy.registry.issuerkeys import Pinned, parse
from cacheproxy.registry.oidc import LEEWAY, Issuer, Issuers
from tests.registry.issuer import (
    AUDIENCE,
    CLAIMS,
    EC,
    NAME,
    NOW,
    RSA,
    STRANGE,
    Signer,
    encoded,
    header,
    jwks,
    signed,
    unsigned,
)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def an_issuer(clock: Clock, *keys: Signer) -> Issuer:
    subjects = Subjects(Template("ci:{repository}"))
    return Issuer(NAME, AUDIENCE, subjects, Pinned(parse(jwks(*keys or (RSA, EC)))), clock)


@pytest.fixture
def issuer(clock: Clock) -> Issuer:
    return an_issuer(clock)


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_token_of_the_issuer_is_believed(issuer: Issuer, key: Signer) -> None:
    verified = await issuer.verify(signed(key=key))
    assert (verified.issuer, verified.until) == (NAME, NOW + 300)
    assert verified.claims["repository"] == ("acme/app",)
    assert "exp" not in verified.claims


async def test_what_real_issuers_put_into_headers_is_let_pass(issuer: Issuer) -> None:
    for name, value in (("x5t", "abc"), ("x5t#S256", "abc"), ("typ", "jwt"), ("typ", "at+jwt")):
        assert await issuer.verify(signed(head={**header(), name: value}))
    bare = {"alg": "ES256", "kid": "ec"}  # as Kubernetes writes it
    assert await issuer.verify(signed(head=bare))


async def test_an_audience_may_be_one_of_a_list(issuer: Issuer) -> None:
    assert await issuer.verify(signed({**CLAIMS, "aud": ["https://kubernetes.default.svc", AUDIENCE]}))


async def test_nbf_may_be_left_out(issuer: Issuer) -> None:
    assert await issuer.verify(signed(without("nbf")))


async def test_lists_of_texts_are_claims_and_nothing_else_is(issuer: Issuer) -> None:
    said = {**CLAIMS, "groups": ["a", "b"], "mixed": ["a", 1], "deep": {"a": "b"}, "no": None, "yes": True}
    claims = (await issuer.verify(signed(said))).claims
    assert claims["groups"] == ("a", "b")
    assert claims.keys().isdisjoint({"mixed", "deep", "no", "yes"})


async def test_a_token_ends_and_begins_with_some_leeway(issuer: Issuer, clock: Clock) -> None:
    token = signed()
    for moment in (NOW - LEEWAY, NOW + 299 + LEEWAY):
        clock.now = moment
        await issuer.verify(token)
    clock.now = NOW - LEEWAY - 1
    with pytest.raises(Refused, match="not valid yet"):
        await issuer.verify(token)
    clock.now = NOW + 300 + LEEWAY
    with pytest.raises(Refused, match="has expired"):
        await issuer.verify(token)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


def public_key_as_secret(key: Signer) -> str:
    signing = unsigned("HS256").removesuffix(".")
    mac = hmac.new(key.as_pem(private=False), signing.encode(), hashlib.sha256).digest()
    return f"{signing}.{encoded(mac)}"


def written(claims: Mapping[str, Any], name: str, text: str) -> bytes:
    """The claims, one of them with a value that no library writes."""
    return json.dumps({**claims, name: 123454321}).replace("123454321", text).encode()


HEADERS: dict[str, dict[str, Any]] = {
    "unknown kid": header(kid="other"),
    "kid that escapes": header(kid="../ec"),
    "kid of another type": header(kid=["ec"]),
    "long kid": header(kid="e" * 300),
    "no kid": {"alg": "ES256", "typ": "JWT"},
    "empty kid": header(kid=""),
    "kid of another key": header(kid="rsa"),
    "its own key": header(jwk=STRANGE.as_dict(private=False)),
    "a key by address": header(jku="http://127.0.0.1/keys"),
    "a certificate by address": header(x5u="http://127.0.0.1/cert"),
    "a certificate": header(x5c=["AAAA"]),
    "critical": header(crit=["b64"], b64=False),
    "unencoded": header(b64=False),
    "compressed": header(zip="DEF"),
    "encrypted": header(enc="A128GCM"),
    "nested": header(cty="JWT"),
    "another type": header(typ="secevent+jwt"),
    "another algorithm of the kind": header(alg="ES512"),
    "another kind of algorithm": header(alg="RS256"),
    "HMAC": header(alg="HS256"),
    **{f"alg {each!r}": header(alg=each) for each in ("none", "None", "nOnE", "", None, ["ES256"])},
    "long": header(x5t="x" * 600),
}
BODIES: dict[str, Any] = {
    **{f"no {name}": without(name) for name in ("iss", "aud", "iat", "exp")},
    "another issuer": {**CLAIMS, "iss": "https://other.example"},
    "the issuer, with a slash": {**CLAIMS, "iss": f"{NAME}/"},
    "the issuer, in capitals": {**CLAIMS, "iss": NAME.upper()},
    "issuers": {**CLAIMS, "iss": [NAME]},
    "another audience": {**CLAIMS, "aud": "other"},
    "no audience": {**CLAIMS, "aud": []},
    "an audience that begins like ours": {**CLAIMS, "aud": f"{AUDIENCE}.example"},
    "an audience with ours in it": {**CLAIMS, "aud": f"other {AUDIENCE}"},
    "audiences in one text": {**CLAIMS, "aud": f'["{AUDIENCE}"]'},
    "a list in a list": {**CLAIMS, "aud": [[AUDIENCE]]},
    "a list of several types": {**CLAIMS, "aud": [AUDIENCE, 7]},
    "an object of audiences": {**CLAIMS, "aud": {AUDIENCE: True}},
    "exp as text": {**CLAIMS, "exp": str(int(NOW) + 300)},
    "exp true": {**CLAIMS, "exp": True},
    "exp null": {**CLAIMS, "exp": None},
    "exp a list": {**CLAIMS, "exp": [int(NOW) + 300]},
    "exp without end": written(CLAIMS, "exp", "1e400"),
    "exp beyond time": {**CLAIMS, "exp": 1 << 60},
    "exp beyond numbers": {**CLAIMS, "exp": 10**400},
    "exp Infinity": written(CLAIMS, "exp", "Infinity"),
    "exp NaN": written(CLAIMS, "exp", "NaN"),
    "exp before time": {**CLAIMS, "exp": -1},
    "over": {**CLAIMS, "exp": int(NOW) - 31},
    "not yet": {**CLAIMS, "nbf": int(NOW) + 31},
    "nbf as text": {**CLAIMS, "nbf": "0"},
    "of tomorrow": {**CLAIMS, "iat": int(NOW) + 86400},
    "iat as text": {**CLAIMS, "iat": str(int(NOW))},
    "deep": b'{"a":' + b"[" * 2500 + b"]" * 2500 + b"}",
    "deep, and never closed": b"[" * 5000,
    "no JSON": b"\xff\xfe",
    "no object": b"[]",
    "nothing": b"",
    "a number": b"7",
}
TEXTS: dict[str, str] = {
    "empty": "",
    "two dots": "..",
    "one part": signed().replace(".", ""),
    "two parts": signed().rpartition(".")[0],
    "four parts": signed() + ".x",
    "five parts of an encrypted one": "a.b.c.d.e",
    "no signature": signed().rpartition(".")[0] + ".",
    "short signature": signed()[:-8],
    "long signature": signed() + "AAAA",
    "padded": signed() + "==",
    "with a blank": signed() + " ",
    "with a line": signed() + "\n",
    "another's key by the same name": signed(key=STRANGE),
    "another's key, brought along": signed(
        head=header(STRANGE, jwk=STRANGE.as_dict(private=False)), key=STRANGE
    ),
    **{f"the public key {key.kid} as a secret": public_key_as_secret(key) for key in (RSA, EC)},
    **{f"unsigned, alg {each!r}": unsigned(each) for each in ("none", "None", "nOnE", "NONE", "", "ES256")},
    "too long": signed({**CLAIMS, "jti": "1" * MAX_CREDENTIALS}),
    "a header that is no JSON": "!!!." + signed().partition(".")[2],
    "a header that is no object": encoded(b"[]") + "." + signed().partition(".")[2],
    "a deep header": encoded(b"[" * 300) + "." + signed().partition(".")[2],
    "not ASCII": "é" + signed(),
    "another body": ".".join((signed().split(".")[0], encoded(b"{}"), signed().split(".")[2])),
    "another header": ".".join((encoded(json.dumps(header(x5t="a")).encode()), *signed().split(".")[1:])),
    "JSON serialisation": json.dumps(
        dict(zip(("protected", "payload", "signature"), signed().split("."), strict=True))
    ),
}
ATTACKS = {
    **{f"header: {name}": signed(head=head) for name, head in HEADERS.items()},
    **{f"claims: {name}": signed(claims) for name, claims in BODIES.items()},
    **TEXTS,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
async def test_nothing_else_is_believed_and_soon(issuer: Issuer, attack: str) -> None:
    started = time.process_time()
    with pytest.raises(Refused):
        await issuer.verify(attack)
    assert time.process_time() - started < 0.05


@pytest.mark.parametrize("alg", ["PS256", "RS512"])
async def test_a_key_that_says_its_algorithm_has_no_other(clock: Clock, alg: str) -> None:
    keys = Pinned(parse(jwks(RSA, alg=alg)))
    strict = Issuer(NAME, AUDIENCE, Subjects(Template("ci:{repository}")), keys, clock)
    with pytest.raises(Refused, match="cannot have made"):
        await strict.verify(signed(key=RSA))


VALID = [signed(key=key) for key in (RSA, EC)]
PATIENT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""A busy machine is no fault of theirs."""
BYTES = [bytes([each]).decode("latin-1") for each in range(256)]


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=600, suppress_health_check=PATIENT, deadline=None)
async def test_no_token_that_differs_in_one_byte_is_believed(issuer: Issuer, token: str, data: Any) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(BYTES).filter(lambda byte: byte != token[place]))
    await _refused(issuer, token[:place] + other + token[place + 1 :])


async def _refused(issuer: Issuer, text: str) -> None:
    with pytest.raises(Refused):
        await issuer.verify(text)


@pytest.mark.parametrize("token", VALID, ids=["RS256", "ES256"])
async def test_no_end_that_decodes_to_the_same_signature_is_believed(issuer: Issuer, token: str) -> None:
    """The last character of a signature has bits that mean nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= "
    for part in range(3):
        whole = token.split(".")
        for letter in set(letters) - {whole[part][-1]}:
            await _refused(issuer, ".".join((*whole[:part], whole[part][:-1] + letter, *whole[part + 1 :])))


@given(st.sampled_from(VALID), st.integers(0, 3000), st.sampled_from([*BYTES, ""]))
@settings(max_examples=300, suppress_health_check=PATIENT, deadline=None)
async def test_no_token_with_a_byte_more_or_less_is_believed(
    issuer: Issuer, token: str, place: int, byte: str
) -> None:
    place %= len(token)
    longer = token[:place] + byte + token[place:]
    await _refused(issuer, longer if byte else token[:place] + token[place + 1 :])


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: f"{encoded(data)}.{encoded(data)}."))
@settings(suppress_health_check=PATIENT, deadline=None)
async def test_what_is_no_token_is_no_fault(issuer: Issuer, text: str) -> None:
    await _refused(issuer, text)
    assert Issuers([issuer]).of(text) is None


def test_an_issuer_is_known_by_what_its_tokens_say(issuer: Issuer) -> None:
    issuers = Issuers([issuer])
    assert issuers.of(signed()) is issuer
    assert issuers.of(unsigned("none")) is issuer
    for other in (
        signed({**CLAIMS, "iss": "other"}),
        signed(b"[]"),
        "",
        "a.b.c",
        "password",
        f"{signed()}.x",
    ):
        assert issuers.of(other) is None
    assert issuers.named(NAME) is issuer
    assert issuers.named("") is None
