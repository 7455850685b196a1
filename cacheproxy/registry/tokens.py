"""Tokens that this registry gives out and believes: JSON Web Tokens, signed with ES256 by keys of its own.

One algorithm, and the key is chosen by our own table: what a token's header says of keys is not looked at but
refused. A token is an upper bound: at each request the rules are asked again.
"""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Callable
from typing import Annotated, Protocol

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from cacheproxy.core.credentials import MAX_CREDENTIALS
from cacheproxy.core.scopes import Actions, Token
from cacheproxy.core.subjects import Proof

ALGORITHM = "ES256"
ISSUER = AUDIENCE = "cacheproxy"
"""The keys are this installation's alone, so its name says nothing more."""

MAX_HEADER = 256
"""Characters of a token's header; ours have less than 100."""

LEEWAY = 30.0
"""Seconds that the clocks of our nodes may differ."""


class Keys(Protocol):
    @property
    def current(self) -> ECKey:
        """What signs now, with a kid."""
        ...

    def find(self, kid: str) -> ECKey | None:
        """One that signs, or did, and may still be believed."""
        ...


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


class _Access(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    actions: list[str]
    type: str = "repository"


class _Proof(msgspec.Struct, forbid_unknown_fields=True):
    issuer: str
    claims: dict[str, tuple[str, ...]]


_Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
"""Seconds since 1970."""


class _Claims(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    iss: str
    aud: str
    sub: str
    """"" for who gives no name."""
    iat: _Time
    nbf: _Time
    exp: _Time
    jti: str
    access: list[_Access]
    proof: _Proof | None = None


class Tokens:
    def __init__(self, keys: Keys, seconds: float, clock: Callable[[], float]) -> None:
        """`seconds`: how long a token is good for."""
        self._keys = keys
        self.seconds = seconds
        self._clock = clock

    def issue(
        self, subject: str | None, actions: Actions, proof: Proof | None = None, until: float = math.inf
    ) -> tuple[str, Token]:
        """The signed token; not beyond `until`, when what proved the subject ends. Takes 0.1 ms."""
        now = int(self._clock())
        token = Token(subject, actions, now, min(now + self.seconds, int(min(until, 1 << 48))), proof)
        key = self._keys.current
        access = [_Access(name, sorted(some)) for name, some in actions.items()]
        claims = _Claims(
            *(ISSUER, AUDIENCE, subject or "", now, now, int(token.until), secrets.token_hex(8), access),
            None if proof is None else _Proof(proof.issuer, dict(proof.claims)),
        )
        header = {"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}
        return jwt.encode(header, msgspec.to_builtins(claims), key, algorithms=[ALGORITHM]), token

    def verify(self, text: str) -> Token | None:
        """What the token says; None unless it is ours, and of now."""
        key = self._key(text)
        if key is None:
            return None
        try:
            signed = jwt.decode(text, key, algorithms=[ALGORITHM])
            claims = msgspec.convert(signed.claims, _Claims, strict=True)
        except (JoseError, ValueError):
            return None
        return _token(claims) if _holds(claims, self._clock()) else None

    def _key(self, text: str) -> ECKey | None:
        header, *rest = text.split(".")
        if len(text) > MAX_CREDENTIALS or len(header) > MAX_HEADER or len(rest) != 2:
            return None
        try:
            decoded = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
            said = msgspec.json.decode(decoded, type=_Header)
        except (ValueError, RecursionError):
            return None
        return self._keys.find(said.kid) if said.alg == ALGORITHM else None


def _holds(claims: _Claims, now: float) -> bool:
    return (
        claims.iss == ISSUER
        and claims.aud == AUDIENCE
        and max(claims.iat, claims.nbf) <= now + LEEWAY
        and now < claims.exp + LEEWAY
    )


def _token(claims: _Claims) -> Token:
    actions = {each.name: frozenset(each.actions) for each in claims.access if each.type == "repository"}
    proof = None if claims.proof is None else Proof(claims.proof.issuer, claims.proof.claims)
    return Token(claims.sub or None, actions, claims.iat, claims.exp, proof)
