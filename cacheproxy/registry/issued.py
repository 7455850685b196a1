"""Accounts that are made and revoked by command, while the daemon runs: robots, mostly."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import NAME
from cacheproxy.store.accounts import AccountRow, AccountRows

_NAME = re.compile(NAME)


@dataclass(frozen=True, slots=True)
class Listed:
    name: str
    groups: tuple[str, ...]
    created: float
    expires: float | None


class Issued:
    def __init__(self, rows: AccountRows, clock: Callable[[], float]) -> None:
        self._rows = rows
        self._clock = clock

    async def find(self, name: str) -> AccountRow | None:
        """The account; None: there is none (any more). Raises as Database.read."""
        row = await self._rows.find(name)
        return None if row is None or self._is_over(row) else row

    async def all(self) -> list[Listed]:
        """Also those whose time is over."""
        return [Listed(row.name, row.groups, row.created, row.expires) for row in await self._rows.all()]

    async def add(self, name: str, groups: Sequence[str], seconds: float | None) -> str:
        """The secret of a new account, which is nowhere else. `seconds` None: it does not end.

        Raises OCIError: 400 for what is no name, 409 for one that is taken.
        """
        for each in (name, *groups):
            if _NAME.fullmatch(each) is None:
                said = f"{each[:150]!a} is no name: letters, digits and . _ @ + -, and none of these first"
                raise OCIError("UNSUPPORTED", said, status=400)
        secret, now = secrets.token_urlsafe(32), self._clock()
        expires = None if seconds is None else now + seconds
        row = AccountRow(name, hash_of(secret), tuple(sorted(set(groups))), now, expires)
        if not await self._rows.add(row):
            raise OCIError("UNSUPPORTED", f"there is an account {name} already: revoke it first", status=409)
        return secret

    async def revoke(self, name: str) -> None:
        """Raises OCIError 404."""
        if not await self._rows.remove(name):
            said = f"there is no account {name} that a command made: see `cacheproxy account list`"
            raise OCIError("UNSUPPORTED", said, status=404)

    def _is_over(self, row: AccountRow) -> bool:
        return row.expires is not None and row.expires <= self._clock()


def hash_of(secret: str) -> bytes:
    """Enough for what a machine made: it is too long to be guessed."""
    return hashlib.sha256(secret.encode()).digest()
