"""Tokens of others: ID tokens of configured issuers (OpenID Connect Core, section 3.1.3.7; RFC 8725).

The issuer is chosen by what the token says and proven by that issuer's keys; the key says which algorithms it
can have signed with. What a header says of keys, beyond the name of one, is not looked at but refused.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from cacheproxy.core.credentials import MAX_CREDENTIALS
from cacheproxy.core.subjects import Claims, Subjects
from cacheproxy.registry.federation import Refused
from cacheproxy.registry.issuerkeys import Key

MAX_HEADER = 512
"""Characters; those of known issuers have less than 200."""

LEEWAY = 30.0
"""Seconds that an issuer's clock may differ from ours."""

TYPES = frozenset({"JWT", "AT+JWT"})
"""What `typ` may say, in capitals: an ID token, or an access token (RFC 9068)."""


class IssuerKeys(Protocol):
    async def find(self, kid: str) -> Key | None:
        """None: the issuer names none like it. Raises Unavailable."""
        ...


class Verified(NamedTuple):
    """What a token says that its issuer has signed, that is for us, and of now."""

    issuer: str
    claims: Claims
    until: float
    """Wall clock."""


class _Header(msgspec.Struct, forbid_unknown_fields=True, rename={"thumbprint": "x5t#S256"}):
    alg: str
    kid: Annotated[str, msgspec.Meta(max_length=256)]
    typ: str = "JWT"
    x5t: str = ""
    """These two name a certificate, and nothing is made of it."""
    thumbprint: str = ""


_Time = Annotated[float, msgspec.Meta(ge=0, le=1 << 48)]
"""Seconds since 1970."""


class _Claims(msgspec.Struct):
    iss: str
    aud: str | list[str]
    exp: _Time
    iat: _Time
    nbf: _Time = 0


class _Named(msgspec.Struct):
    iss: str


class Issuer:
    def __init__(
        self,
        name: str,
        audience: str,
        subjects: Subjects,
        keys: IssuerKeys,
        clock: Callable[[], float],
    ) -> None:
        """`name`: the `iss` of its tokens, to the letter. `audience`: what we are called in their `aud`."""
        self.name = name
        self.subjects = subjects
        self._audience = audience
        self._keys = keys
        self._clock = clock

    async def verify(self, text: str) -> Verified:
        """Raises Refused, and Unavailable where its keys cannot be had."""
        header = _header(text)
        key = await self._keys.find(header.kid)
        if key is None:
            raise Refused(
                f"the token is signed by a key that {self.name} does not publish: {header.kid[:100]!a}"
            )
        if header.alg not in key.algorithms:
            raise Refused(f"the token is signed by {header.alg[:20]!a}, which its key cannot have made")
        claims, said = self._signed(text, key, header.alg)
        self._hold(claims)
        return Verified(self.name, said, claims.exp)

    def _signed(self, text: str, key: Key, algorithm: str) -> tuple[_Claims, Claims]:
        try:
            payload = jws.deserialize_compact(text, key.key, algorithms=[algorithm]).payload
        except (JoseError, ValueError):
            raise Refused("the token has a signature that is not its issuer's") from None
        try:
            return msgspec.json.decode(payload, type=_Claims), _texts(msgspec.json.decode(payload))
        except (ValueError, RecursionError):
            raise Refused("the token lacks iss, aud, exp or iat, or has none that could be one") from None

    def _hold(self, claims: _Claims) -> None:
        now = self._clock()
        audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        if claims.iss != self.name:
            raise Refused(f"the token is not of {self.name}")
        if self._audience not in audiences:
            raise Refused(f'the token is for others: its audience is not "{self._audience}"')
        if now >= claims.exp + LEEWAY:
            raise Refused("the token has expired")
        if max(claims.iat, claims.nbf) > now + LEEWAY:
            raise Refused("the token is not valid yet; is the clock right, there and here?")


def _texts(said: dict[str, Any]) -> Claims:
    """The claims that are texts, or lists of nothing else."""
    found = ((name, value if isinstance(value, list) else [value]) for name, value in said.items())
    return {name: tuple(values) for name, values in found if all(isinstance(each, str) for each in values)}


def _header(text: str) -> _Header:
    """Raises Refused."""
    written, *rest = text.split(".")
    if len(text) > MAX_CREDENTIALS or len(written) > MAX_HEADER or len(rest) != 2:
        raise Refused("the token is no signed token, or too long")
    try:
        header = msgspec.json.decode(_decoded(written), type=_Header)
    except (ValueError, RecursionError):
        raise Refused(
            "the token has a header with more than alg, kid and typ, or without one of these"
        ) from None
    if header.typ.upper() not in TYPES:
        raise Refused("the token is no JWT, by its header")
    return header


def _decoded(written: str) -> bytes:
    """Raises ValueError."""
    try:
        return urlsafe_b64decode(written + "=" * (-len(written) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None


class Issuers:
    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._known = {issuer.name: issuer for issuer in issuers}

    def named(self, name: str) -> Issuer | None:
        return self._known.get(name)

    def of(self, text: str) -> Issuer | None:
        """Whose token it says that it is; None: of none that is known here. Nothing is proven by that."""
        parts = text.split(".") if len(text) <= MAX_CREDENTIALS else ()
        if len(parts) != 3:
            return None
        try:
            return self._known.get(msgspec.json.decode(_decoded(parts[1]), type=_Named).iss)
        except (ValueError, RecursionError):
            return None
