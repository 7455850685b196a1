"""Logins by passwords that people chose: slow hashes, few at once, and a pause for who guesses.

A right password is remembered for some minutes, so that pulls do not wait for hashes. A name that does not
exist takes as long as one that does.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping

import trio

from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal
from cacheproxy.registry.guesses import Guesses

AT_ONCE = 2
"""Hashes: each takes a processor for a while."""

IN_LINE = 32
"""Logins that wait for one. Who comes then is told to come again."""

REMEMBERED_FOR = 300.0
"""Seconds."""

MOST_REMEMBERED = 4096

LONGEST = 72
"""Bytes of a password: bcrypt does not look at more, so more would prove nothing."""


class Passwords:
    def __init__(self, hashes: Mapping[str, bytes], clock: Callable[[], float]) -> None:
        """`hashes`: of bcrypt, by name."""
        self._hashes = hashes
        self._clock = clock
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        self._guesses = Guesses()
        self._nobody = _like(next(iter(hashes.values()), b"$2b$10$"))

    async def login(self, login: Login, address: Address | None) -> Principal | None:
        """Who that is; None: nobody. Raises OCIError 429 for who guesses, and when too many wait."""
        now, mark = self._clock(), self._mark(login)
        if self._right.get(mark, 0.0) > now:
            return Principal(f"user:{login.name}")
        pause = self._guesses.pause(login.name, address, now)
        if pause > 0:
            raise _later(f"too many wrong passwords for {login.name}, or from {address}", pause)
        if not await self._is_right(login):
            self._guesses.wrong(login.name, address, now)
            return None
        self._guesses.right(login.name, address)
        if len(self._right) >= MOST_REMEMBERED:
            self._right.clear()
        self._right[mark] = now + REMEMBERED_FOR
        return Principal(f"user:{login.name}")

    def proof(self, name: str) -> bytes | None:
        """The hash; None: there is no such name."""
        return self._hashes.get(name)

    async def _is_right(self, login: Login) -> bool:
        password = login.password.encode()
        if not password or len(password) > LONGEST or b"\0" in password:
            return False
        if self._limiter.statistics().tasks_waiting >= IN_LINE:
            raise _later("too many passwords are being checked", 1.0)
        known = self._hashes.get(login.name)
        right = await trio.to_thread.run_sync(_check, password, known or self._nobody, limiter=self._limiter)
        return right and known is not None

    def _mark(self, login: Login) -> bytes:
        text = f"{login.name}:{login.password}".encode()
        return hmac.digest(self._key, text, "sha256")


def _like(hashed: bytes) -> bytes:
    """A hash of as much work that no password has: its salt is fine, its end is all zeros."""
    return hashed[:7] + b"." * 53


def _check(password: bytes, hashed: bytes) -> bool:
    # A cache without passwords does without it.
    import bcrypt

    return bcrypt.checkpw(password, hashed)


def _later(said: str, seconds: float) -> OCIError:
    return OCIError(
        "TOOMANYREQUESTS", f"{said}; try again later", headers=(("Retry-After", str(int(seconds) + 1)),)
    )
