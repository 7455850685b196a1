"""The keys of an issuer of tokens (RFC 7517): read strictly, fetched seldom, good for a while without it."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import structlog
import trio

from cacheproxy.core.errors import Unavailable
from cacheproxy.core.failures import UpstreamError

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

log = structlog.get_logger()

FRESH = 3600.0
"""Seconds after which keys are fetched again: what an issuer no longer names ends by then."""

BELIEVED = 86400.0
"""Seconds for which keys are good while their issuer does not answer."""

PAUSE = 15.0
"""Seconds between two fetches, whoever sends what: an unknown key may be a new one, or made up."""

MOST = 64
"""Keys of one issuer. Those that there are have 2 to 10."""

SHORTEST, LONGEST = 2048, 8192
"""Bits of an RSA key."""

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ALGORITHMS: Mapping[str, frozenset[str]] = {
    "RSA": _RSA,
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
}
"""What a key can have signed with, by its type or curve: the key says it, never the token alone."""


class Key(NamedTuple):
    key: RSAKey | ECKey
    algorithms: frozenset[str]


Keys = Mapping[str, Key]
"""By kid."""

Fetch = Callable[[], Awaitable[bytes]]
"""A JWK set, as it came. Raises UpstreamError; has a deadline."""


class KeysUnavailable(Unavailable):
    """An issuer does not answer, and what was known of its keys is not enough."""

    def __init__(self, issuer: str, why: str) -> None:
        super().__init__(f"keys of {issuer} are not known: {why}")
        self.told = f"the keys of {issuer} cannot be fetched now, so its tokens cannot be checked; try again"


class _Written(msgspec.Struct):
    """Of a JWK (RFC 7517 section 4; RFC 7518 section 6), what a public key has."""

    kty: str
    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str | None = None
    crv: str = ""
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""


class _Set(msgspec.Struct):
    keys: list[msgspec.Raw]


def parse(text: bytes) -> Keys:
    """Those of a JWK set that can prove a token: public, for signatures, and named. Raises ValueError.

    Others are passed over (RFC 7517 section 5): shared secrets, short ones, what encrypts, what is malformed.
    """
    try:
        written = msgspec.json.decode(text, type=_Set).keys
    except (ValueError, RecursionError):
        raise ValueError("is no JWK set") from None
    if len(written) > MOST:
        raise ValueError(f"has more than {MOST} keys")
    keys: dict[str, Key] = {}
    for raw in written:
        found = _read(raw)
        if found is not None:
            kid, key = found
            if kid in keys:
                raise ValueError(f"has two keys with the kid {kid[:100]!a}")
            keys[kid] = key
    if not keys:
        raise ValueError("has no key that signatures could be proven with")
    return keys


def _read(raw: msgspec.Raw) -> tuple[str, Key] | None:
    # As for keys of our own: these libraries take 80 ms and some MiB.
    from joserfc.errors import JoseError

    try:
        said = msgspec.json.decode(raw, type=_Written)
        if said.use != "sig" or "verify" not in said.key_ops:
            return None
        algorithms = ALGORITHMS.get(said.kty if said.kty == "RSA" else said.crv, frozenset())
        if said.alg is not None:
            algorithms &= {said.alg}
        key = _public(said) if algorithms else None
    except (ValueError, JoseError, RecursionError):
        return None
    return None if key is None else (said.kid, Key(key, algorithms))


def _public(said: _Written) -> RSAKey | ECKey | None:
    """Raises ValueError, JoseError."""
    from joserfc.jwk import ECKey, RSAKey

    if said.kty == "RSA":
        modulus = int.from_bytes(urlsafe_b64decode(said.n + "=" * (-len(said.n) % 4)), "big")
        usual = SHORTEST <= modulus.bit_length() <= LONGEST
        return RSAKey.import_key({"kty": "RSA", "n": said.n, "e": said.e}) if usual else None
    if said.kty == "EC":
        return ECKey.import_key({"kty": "EC", "crv": said.crv, "x": said.x, "y": said.y})
    return None


class KeyRing:
    """What is known of one issuer's keys. Fetches run in `Fetching`: who waits for one may go away."""

    def __init__(
        self,
        issuer: str,
        fetch: Fetch,
        fetching: Fetching,
        clock: Callable[[], float],
        former: KeyRing | None,
    ) -> None:
        """`former`: what knows the same keys, before a reload. `clock`: one that nobody sets."""
        self.issuer = issuer
        self._fetch = fetch
        self._fetching = fetching
        self._clock = clock
        self.keys: Keys = {} if former is None else former.keys
        self._fetched: float = -BELIEVED if former is None else former._fetched
        self._again = 0.0
        """When it may be fetched."""
        self._failure = "" if self.keys else "they were not fetched yet"
        """Why the last fetch gave nothing; "": it did."""
        self._landing: trio.Event | None = None
        """Set when the fetch that is under way is over."""

    async def find(self, kid: str) -> Key | None:
        """The key; None: the issuer names none like it. Raises KeysUnavailable.

        A key that is known is never waited for.
        """
        now = self._clock()
        known = self.keys.get(kid) if now < self._fetched + BELIEVED else None
        if known is None or now >= self._fetched + FRESH:
            self._ask(now)
        if known is None and self._landing is not None:
            await self._landing.wait()
            known = self.keys.get(kid) if self._clock() < self._fetched + BELIEVED else None
        if known is None and self._failure:
            raise KeysUnavailable(self.issuer, self._failure)
        return known

    def _ask(self, now: float) -> None:
        if self._landing is None and now >= self._again:
            self._landing = trio.Event()
            self._fetching.begin(self)

    async def fetch(self) -> None:
        """Raises nothing but cancellation. Once for each `begin`."""
        try:
            self.keys = parse(await self._fetch())
            self._failure, self._fetched = "", self._clock()
            log.info("keys of an issuer fetched", issuer=self.issuer, keys=len(self.keys))
        except UpstreamError as error:
            self._failed(error.message)
        except ValueError as error:
            self._failed(f"what it sends {error}")
        except Exception as error:
            log.exception("keys of an issuer not fetched", issuer=self.issuer)
            self._failed(type(error).__name__)
        finally:
            self._again = self._clock() + PAUSE
            landing, self._landing = self._landing, None
            if landing is not None:
                landing.set()

    def _failed(self, why: str) -> None:
        self._failure = why
        log.warning("keys of an issuer not fetched", issuer=self.issuer, reason=why, known=len(self.keys))


class Fetching:
    """Where fetches run, so that they belong to no request."""

    def __init__(self) -> None:
        self._begin, self._begun = trio.open_memory_channel[KeyRing](float("inf"))

    def begin(self, ring: KeyRing) -> None:
        """`ring.fetch` will run; a ring has one under way at most."""
        self._begin.send_nowait(ring)

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            async for ring in self._begun:
                nursery.start_soon(ring.fetch)


class Pinned:
    """Keys from a file: nothing is fetched."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    async def find(self, kid: str) -> Key | None:
        return self.keys.get(kid)
