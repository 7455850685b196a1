"""Logins by passwords that people chose: slow hashes, few at once, and a pause for who guesses.

A right password is remembered for some minutes, so that pulls do not wait for hashes. A name that does not
exist takes as long as one that does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login
from cacheproxy.core.rights import Principal
from cacheproxy.registry.attempts import Attempts, later

AT_ONCE = 2
"""Hashes: each takes a processor for a while."""

IN_LINE = 32
"""Logins that wait for one. Who comes then is told to come again."""

LONGEST = 72
"""Bytes of a password: bcrypt does not look at more, so more would prove nothing."""


class Passwords:
    def __init__(self, hashes: Mapping[str, bytes], clock: Callable[[], float]) -> None:
        """`hashes`: of bcrypt, by name. `clock`: one that nobody sets."""
        self._hashes = hashes
        self._attempts = Attempts(clock)
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._nobody = _like(next(iter(hashes.values()), b"$2b$10$"))

    async def login(self, login: Login, address: Address | None) -> Principal | None:
        """Who that is; None: nobody. Raises OCIError 429 for who guesses, and when too many wait."""
        if self._attempts.remembered(login):
            return Principal(f"user:{login.name}")
        self._attempts.demand(login, address)
        if not await self._is_right(login):
            self._attempts.wrong(login, address)
            return None
        self._attempts.right(login, address)
        return Principal(f"user:{login.name}")

    def proof(self, name: str) -> bytes | None:
        """The hash; None: there is no such name."""
        return self._hashes.get(name)

    async def _is_right(self, login: Login) -> bool:
        password = login.password.encode()
        if not password or len(password) > LONGEST or b"\0" in password:
            return False
        if self._limiter.statistics().tasks_waiting >= IN_LINE:
            raise later("too many passwords are being checked", 1.0)
        known = self._hashes.get(login.name)
        right = await trio.to_thread.run_sync(_check, password, known or self._nobody, limiter=self._limiter)
        return right and known is not None


def _like(hashed: bytes) -> bytes:
    """A hash of as much work that no password has: its salt is fine, its end is all zeros."""
    return hashed[:7] + b"." * 53


def _check(password: bytes, hashed: bytes) -> bool:
    # A cache without passwords does without it.
    import bcrypt

    return bcrypt.checkpw(password, hashed)
