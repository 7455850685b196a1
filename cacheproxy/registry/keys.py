"""The keys that sign our tokens: made at the first start, the same on all nodes, and replaced every month."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio

from cacheproxy.registry.sealing import Seal, SealedElsewhere, is_clear
from cacheproxy.store.errors import StoreError
from cacheproxy.store.tokens import KeptKey, TokenRows

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

log = structlog.get_logger()

ROTATED = 30 * 86400.0
"""Seconds after which a key is followed by another."""

LOOK_EVERY = 3600.0
"""Seconds between two looks at the rows: then each node knows the keys of the others."""

KNOWN_AFTER = 2 * LOOK_EVERY
"""Seconds until all nodes know a new key, so that it may sign."""

FORGOTTEN = ROTATED + 3 * 86400.0
"""Seconds: longer than the last token that a key signed is good for."""


class SigningKeys:
    def __init__(self, rows: TokenRows, seal: Seal, clock: Callable[[], float]) -> None:
        """`seal` has its key before the first look."""
        self.rows = rows
        self.seal = seal
        self._clock = clock
        self._known: dict[str, ECKey] = {}
        self._created: dict[str, float] = {}

    @property
    def current(self) -> ECKey:
        """What signs now: the newest that all nodes know, or the first one of all. After `look`."""
        settled = self._clock() - KNOWN_AFTER
        known = [kid for kid, created in self._created.items() if created <= settled]
        return self._known[known[-1] if known else next(iter(self._known))]

    def find(self, kid: str) -> ECKey | None:
        return self._known.get(kid)

    async def look(self) -> None:
        """Read the rows, and add a key where it is time. Raises StoreError, SealedElsewhere."""
        now = self._clock()
        kept = await self.rows.keys(self._made(now), now - ROTATED, now - FORGOTTEN)
        clear = [key for key in kept if is_clear(key.secret)]
        if clear:
            await self.rows.replace((self._sealed(key), key.secret) for key in clear)
            log.info("keys of tokens that lay in the database in clear are sealed", keys=len(clear))
        self._known = {key.kid: self._known.get(key.kid) or self._read(key) for key in kept}
        self._created = {key.kid: key.created for key in kept}

    async def run(self) -> None:
        """Look again and again, once somebody did for the first time: without accounts there are no keys."""
        while True:
            await trio.sleep(LOOK_EVERY)
            if self._known:
                try:
                    await self.look()
                except (StoreError, SealedElsewhere) as error:
                    log.warning("keys of tokens not looked at; again in an hour", error=str(error))

    def _sealed(self, key: KeptKey) -> KeptKey:
        return key._replace(secret=self.seal.close(f"signing_key {key.kid}", key.secret))

    def _made(self, now: float) -> KeptKey:
        # These libraries take 80 ms and some MiB, which a cache without accounts does without.
        from joserfc.jwk import ECKey

        secret = ECKey.generate_key("P-256").as_der(private=True)
        return self._sealed(KeptKey(secrets.token_hex(8), secret, now))

    def _read(self, key: KeptKey) -> ECKey:
        """Raises SealedElsewhere."""
        from joserfc.jwk import ECKey

        kid, secret = key.kid, key.secret
        clear = secret if is_clear(secret) else self.seal.open(f"signing_key {kid}", secret)
        return ECKey.import_key(clear, {"kid": kid, "use": "sig"})
