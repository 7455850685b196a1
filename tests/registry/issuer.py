"""An issuer of tokens: its keys, and tokens with good signatures, whatever they say."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

NAME = "https://token.actions.example"
AUDIENCE = "cacheproxy"
NOW = 1_800_000_000.0
CLAIMS: Mapping[str, Any] = {
    "iss": NAME,
    "aud": AUDIENCE,
    "sub": "repo:acme/app:ref:refs/heads/main",
    "repository": "acme/app",
    "repository_owner": "acme",
    "iat": int(NOW),
    "nbf": int(NOW),
    "exp": int(NOW) + 300,
    "jti": "1",
}
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
STRANGE = ECKey.generate_key("P-256", {"kid": "ec"})
"""By the same name as one of the issuer's."""

Signer = RSAKey | ECKey
ALGORITHM: Mapping[str, str] = {"rsa": "RS256", "ec": "ES256"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header(key: Signer = EC, **other: Any) -> dict[str, Any]:
    return {"alg": ALGORITHM[str(key.kid)], "typ": "JWT", "kid": key.kid, **other}


def signed(claims: Any = CLAIMS, head: Mapping[str, Any] | None = None, key: Signer = EC) -> str:
    """A token with a good signature: what it says is not looked at."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    said = header(key) if head is None else head
    signing = f"{encoded(json.dumps(said).encode())}.{encoded(payload)}"
    algorithm = jws.default_registry.algorithms[ALGORITHM[str(key.kid)]]
    return f"{signing}.{encoded(algorithm.sign(signing.encode(), key))}"


def unsigned(algorithm: str, claims: Mapping[str, Any] = CLAIMS) -> str:
    said = {**header(), "alg": algorithm}
    return f"{encoded(json.dumps(said).encode())}.{encoded(json.dumps(claims).encode())}."


def jwks(*keys: Signer, **extra: Any) -> bytes:
    """What the issuer publishes. `extra`: further members of each key."""
    written = [{**key.as_dict(private=False), "kid": key.kid, **extra} for key in keys]
    return json.dumps({"keys": written}).encode()
