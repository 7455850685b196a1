"""Refresh tokens: what `docker login` keeps instead of the password.

One is the name of a principal and a secret. Its row holds a hash of that secret together with what proves the
account: with another password all of the account's refresh tokens end, as with the account itself.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from cacheproxy.core.rights import Principal
from cacheproxy.registry.accounts import Accounts
from cacheproxy.store.tokens import TokenRows

LONGEST = 512
"""Characters of a refresh token; ours have some 180 at most."""


class RefreshTokens:
    def __init__(
        self, rows: TokenRows, accounts: Accounts, seconds: float, clock: Callable[[], float]
    ) -> None:
        """`seconds`: how long one is good for."""
        self._rows = rows
        self._accounts = accounts
        self._seconds = seconds
        self._clock = clock

    async def give(self, principal: Principal) -> str:
        """A new one. Raises StoreError."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        hashed = await self._hashed(principal.name, secret)
        assert hashed is not None, "who logged in has an account"
        await self._rows.remember(hashed, principal.name, now + self._seconds, now)
        return f"{principal.name}.{secret}"

    async def principal(self, text: str) -> Principal | None:
        """Who may have tokens for it; None: nobody (any more). Raises StoreError."""
        name, _, secret = text.rpartition(".")
        hashed = await self._hashed(name, secret) if len(text) <= LONGEST else None
        if hashed is None or await self._rows.whose(hashed, self._clock()) != name:
            return None
        return await self._accounts.named(name)

    async def _hashed(self, principal: str, secret: str) -> str | None:
        proof = await self._accounts.proof(principal)
        return None if proof is None else hashlib.sha256(proof + b"\0" + secret.encode()).hexdigest()
