"""Tokens of ours for whom others vouch; and that none is another token with one byte changed."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from cacheproxy.core.subjects import Proof
from cacheproxy.registry.tokens import Tokens

NOW = 1_800_000_000.0
KEY = ECKey.generate_key("P-256", {"kid": "ours"})
PULL = {"team/app": frozenset({"pull"})}
PROOF = Proof("https://token.actions.example", {"repository": ("acme/app",), "groups": ("a", "b")})


class OneKey:
    current = KEY

    def find(self, kid: str) -> ECKey | None:
        return KEY if kid == "ours" else None


TOKENS = Tokens(OneKey(), 600.0, lambda: NOW)
VALID = [TOKENS.issue("user:alice", PULL)[0], TOKENS.issue("ci:acme/app", PULL, PROOF, NOW + 60)[0]]
BYTES = [bytes([each]).decode("latin-1") for each in range(256)]


def test_a_token_keeps_what_proved_its_subject() -> None:
    text, token = TOKENS.issue("ci:acme/app", PULL, PROOF, NOW + 60)
    assert TOKENS.verify(text) == token
    assert (token.proof, token.until) == (PROOF, NOW + 60)


def test_a_token_lives_no_longer_than_what_was_shown() -> None:
    ends = [
        TOKENS.issue("ci:acme/app", PULL, PROOF, NOW + each)[1].until for each in (-5, 0.5, 599, 601, 1e9)
    ]
    assert ends == [NOW - 5, NOW, NOW + 599, NOW + 600, NOW + 600]


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_token_that_differs_in_one_byte_is_believed(token: str, data: Any) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(BYTES).filter(lambda byte: byte != token[place]))
    assert TOKENS.verify(token[:place] + other + token[place + 1 :]) is None
