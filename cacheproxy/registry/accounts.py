"""Accounts: names, what proves them, and who they are then."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login
from cacheproxy.core.rights import Principal
from cacheproxy.registry.attempts import Attempts
from cacheproxy.registry.federation import Federation
from cacheproxy.registry.issued import Issued, hash_of
from cacheproxy.registry.passwords import Passwords


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    secret: str = field(repr=False)
    """As it was made by a machine: long, and nobody's habit. What people choose is in a file of hashes."""
    groups: frozenset[str] = frozenset()
    access_key: tuple[str, str] | None = field(default=None, repr=False)
    """Id and secret, for who signs requests; None: it has none of the configuration's."""


class _Known(NamedTuple):
    hash: bytes
    principal: Principal


NOBODY = bytes(32)
"""The hash of no secret."""


class Accounts:
    """The configured ones, of whose secrets only hashes are in memory; those that commands made; those with
    passwords in a file. A name is looked for in this order."""

    def __init__(
        self,
        accounts: Iterable[Account],
        passwords: Passwords | None = None,
        issued: Issued | None = None,
    ) -> None:
        accounts = tuple(accounts)
        self.access_keys = {
            account.access_key[0]: (f"user:{account.name}", account.access_key[1])
            for account in accounts
            if account.access_key is not None
        }
        """By id: name of the principal, and secret."""
        self._known = {
            account.name: _Known(hash_of(account.secret), Principal(f"user:{account.name}", account.groups))
            for account in accounts
        }
        self._passwords = passwords
        self._issued = issued
        self.federation: Federation | None = None
        """Who is known without an account, or by other means than its secret; None: nobody."""
        # Not those of the passwords: what was right here proves nothing there.
        self._attempts = Attempts(time.monotonic)

    async def login(self, login: Login, address: Address | None) -> Principal | None:
        """Who that is; None: nobody. Takes as long for a name that does not exist.

        Raises OCIError 429 for who guesses, and as Database.read.
        """
        known = await self._find(login.name)
        if known is None and self._passwords is not None:
            return await self._passwords.login(login, address)
        self._attempts.demand(login, address)
        expected = NOBODY if known is None else known.hash
        if not hmac.compare_digest(hash_of(login.password), expected) or known is None:
            self._attempts.wrong(login, address)
            return None
        self._attempts.right(login, address)
        return known.principal

    async def named(self, principal: str) -> Principal | None:
        """Who is called that now: whom a token was given to may be gone, or in other groups.

        Raises as Database.read.
        """
        name = _name(principal)
        known = await self._find(name)
        if known is not None:
            return known.principal
        return None if self._hash(name) is None else Principal(principal)

    async def proof(self, principal: str) -> bytes | None:
        """What its secret left here, which is another for another secret; None: there is no such account.

        Raises as Database.read.
        """
        name = _name(principal)
        known = await self._find(name)
        return self._hash(name) if known is None else known.hash

    async def _find(self, name: str) -> _Known | None:
        if name in self._known or self._issued is None:
            return self._known.get(name)
        row = await self._issued.find(name)
        return None if row is None else _Known(row.hash, Principal(f"user:{name}", frozenset(row.groups)))

    def _hash(self, name: str) -> bytes | None:
        return None if self._passwords is None else self._passwords.proof(name)


def _name(principal: str) -> str:
    kind, _, name = principal.partition(":")
    return name if kind == "user" else ""
