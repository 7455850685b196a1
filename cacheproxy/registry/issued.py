"""Accounts that are made and revoked by command, while the daemon runs: robots, mostly."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import NAME
from cacheproxy.store.accounts import AccountRow, AccountRows
from cacheproxy.store.errors import StoreError

log = structlog.get_logger()

_NAME = re.compile(NAME)

KEPT = 30 * 86400.0
"""Seconds for which an account that is over is still listed, so that whoever wonders finds out why."""

LOOK_EVERY = 3600.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Listed:
    name: str
    groups: tuple[str, ...]
    created: float
    expires: float | None
    expired: bool


class Issued:
    def __init__(
        self, rows: AccountRows, clock: Callable[[], float], changed: Callable[[], None] = lambda: None
    ) -> None:
        """`changed` is told that an account is not what it was."""
        self._rows = rows
        self._clock = clock
        self._changed = changed

    async def run(self) -> None:
        """Forget accounts that are long over, again and again."""
        while True:
            await trio.sleep(LOOK_EVERY)
            try:
                await self._rows.forget(self._clock() - KEPT)
            except StoreError as error:
                log.warning("expired accounts not looked through; again in an hour", error=str(error))

    async def find(self, name: str) -> AccountRow | None:
        """The account; None: there is none (any more). Raises as Database.read."""
        row = await self._rows.find(name)
        return None if row is None or self._is_over(row) else row

    async def all(self) -> list[Listed]:
        """Also those whose time is over, for a while."""
        return [
            Listed(row.name, row.groups, row.created, row.expires, self._is_over(row))
            for row in await self._rows.all()
        ]

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
        self._changed()

    def _is_over(self, row: AccountRow) -> bool:
        return row.expires is not None and row.expires <= self._clock()


def hash_of(secret: str) -> bytes:
    """Enough for what a machine made: it is too long to be guessed."""
    return hashlib.sha256(secret.encode()).digest()
