"""Accounts: names, what proves them, and who they are then."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login
from cacheproxy.core.rights import Principal
from cacheproxy.registry.passwords import Passwords


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    secret: str
    """As it was made by a machine: long, and nobody's habit. What people choose is in a file of hashes."""
    groups: frozenset[str] = frozenset()


class Accounts:
    """The configured ones, of whose secrets only hashes are in memory, and those with passwords in a file."""

    def __init__(self, accounts: Iterable[Account], passwords: Passwords | None = None) -> None:
        self._known = {
            account.name: (_hash(account.secret), Principal(f"user:{account.name}", account.groups))
            for account in accounts
        }
        self._passwords = passwords

    async def login(self, login: Login, address: Address | None) -> Principal | None:
        """Who that is; None: nobody. Takes as long for a name that does not exist.

        Raises OCIError 429 for who guesses passwords.
        """
        if self._passwords is not None and login.name not in self._known:
            return await self._passwords.login(login, address)
        expected, principal = self._known.get(login.name, (_hash(""), None))
        proven = hmac.compare_digest(_hash(login.password), expected)
        return principal if proven and login.password else None

    def named(self, principal: str) -> Principal | None:
        """Who is called that now: whom a token was given to may be gone, or in other groups."""
        kind, _, name = principal.partition(":")
        if kind != "user" or self.proof(principal) is None:
            return None
        return self._known[name][1] if name in self._known else Principal(principal)

    def proof(self, principal: str) -> bytes | None:
        """What its secret left here, which is another for another secret; None: there is no such account."""
        name = principal.removeprefix("user:")
        if name in self._known:
            return self._known[name][0]
        return None if self._passwords is None else self._passwords.proof(name)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
