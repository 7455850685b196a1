"""Accounts: names, what proves them, and who they are then."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from cacheproxy.core.credentials import Login
from cacheproxy.core.rights import Principal


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    secret: str
    """As it was made by a machine: long, and nobody's habit. What people choose is in a file of hashes."""
    groups: frozenset[str] = frozenset()


class Accounts:
    """The configured ones. Only hashes of their secrets stay in memory."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._known = {
            account.name: (_hash(account.secret), Principal(f"user:{account.name}", account.groups))
            for account in accounts
        }

    def login(self, login: Login) -> Principal | None:
        """Who that is; None: nobody. Takes as long for a name that does not exist."""
        expected, principal = self._known.get(login.name, (_hash(""), None))
        proven = hmac.compare_digest(_hash(login.password), expected)
        return principal if proven and login.password else None

    def named(self, principal: str) -> Principal | None:
        """Who is called that now: whom a token was given to may be gone, or in other groups."""
        known = self._known.get(principal.removeprefix("user:"))
        return known[1] if known is not None and known[1].name == principal else None

    def proof(self, principal: str) -> bytes | None:
        """What its secret left here, which is another for another secret; None: there is no such account."""
        known = self._known.get(principal.removeprefix("user:"))
        return known[0] if known is not None and known[1].name == principal else None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
