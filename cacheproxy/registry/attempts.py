"""Who tries to log in: a right password is remembered for minutes, wrong ones make whoever guesses wait."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.registry.guesses import Guesses

REMEMBERED_FOR = 300.0
"""Seconds."""

MOST_REMEMBERED = 4096


class Attempts:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: one that nobody sets."""
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        self._guesses = Guesses()

    def remembered(self, login: Login) -> bool:
        """Whether it was right some minutes ago."""
        return self._right.get(self._mark(login), 0.0) > self._clock()

    def demand(self, login: Login, address: Address | None) -> None:
        """Raises OCIError 429 while who guesses has to wait. Who was right before does not notice."""
        pause = self._guesses.pause(login.name, address, self._clock())
        if pause > 0 and not self.remembered(login):
            raise later(f"too many wrong passwords for {login.name}, or from {address}", pause)

    def right(self, login: Login, address: Address | None) -> None:
        self._guesses.right(login.name, address)
        if len(self._right) >= MOST_REMEMBERED:
            self._right.clear()
        self._right[self._mark(login)] = self._clock() + REMEMBERED_FOR

    def wrong(self, login: Login, address: Address | None) -> None:
        self._right.pop(self._mark(login), None)
        self._guesses.wrong(login.name, address, self._clock())

    def _mark(self, login: Login) -> bytes:
        """Passwords themselves are not kept. A name may have a ":", in a form."""
        text = f"{len(login.name)}:{login.name}:{login.password}"
        return hmac.digest(self._key, text.encode(), "sha256")


def later(said: str, seconds: float) -> OCIError:
    headers = (("Retry-After", str(int(seconds) + 1)),)
    return OCIError("TOOMANYREQUESTS", f"{said}; try again later", headers=headers)
