"""Pairs of access keys: an id that a request names, and a secret that signs it (AWS Signature Version 4).

The secret has to be known here in clear to check a signature, so it is sealed and not hashed. The pair proves
its account as it is now: with the account it ends.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal
from cacheproxy.registry.accounts import Accounts
from cacheproxy.registry.sealing import Seal
from cacheproxy.store.access_keys import AccessKeyRow, AccessKeyRows

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

LONGEST = 128
"""Characters of an id (AWS IAM, "AccessKey")."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a signature is checked with, and whom it proves then."""

    principal: Principal
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Listed:
    id: str
    account: str
    """Name of the principal."""
    created: float | None
    """None: it is the configuration's."""


class AccessKeys:
    def __init__(
        self,
        rows: AccessKeyRows,
        accounts: Accounts,
        seal: Seal,
        clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is told that a pair is gone."""
        self._rows = rows
        self._accounts = accounts
        self._seal = seal
        self._clock = clock
        self._changed = changed

    async def find(self, key_id: str) -> Proof | None:
        """None: there is no such pair, or its account is gone. Raises SealedElsewhere, as Database.read.

        Whether there is an id is no secret: who signs wrong is told the same as who has no key.
        """
        if not 0 < len(key_id) <= LONGEST:
            return None
        declared = self._accounts.access_keys.get(key_id)
        if declared is not None:
            name, secret = declared
        else:
            row = await self._rows.find(key_id)
            if row is None:
                return None
            name, secret = row.principal, self._seal.open(_place(row.id, row.principal), row.secret).decode()
        principal = await self._accounts.named(name)
        return None if principal is None else Proof(principal, secret)

    async def add(self, account: str) -> tuple[str, str]:
        """Id and secret of a new pair; the secret is told once. Raises OCIError: 404 for no account."""
        name = f"user:{account}"
        if await self._accounts.named(name) is None:
            said = f"there is no account {account[:150]!a}: make one with `cacheproxy account add` first"
            raise OCIError("UNSUPPORTED", said, status=404)
        key_id = "AKIA" + "".join(secrets.choice(_LETTERS) for _ in range(16))
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        sealed = self._seal.close(_place(key_id, name), secret.encode())
        added = await self._rows.add(AccessKeyRow(key_id, name, sealed, self._clock()))
        assert added, "ids have 80 random bits"
        return key_id, secret

    async def revoke(self, key_id: str) -> None:
        """Raises OCIError: 409 for one of the configuration, 404."""
        if key_id in self._accounts.access_keys:
            said = (
                f"{key_id[:LONGEST]} is the configuration's: take it out of its [[account]], and send SIGHUP"
            )
            raise OCIError("DENIED", said, status=409)
        if not await self._rows.remove(key_id):
            said = f"there is no access key {key_id[:LONGEST]!a}: see `cacheproxy account access-key list`"
            raise OCIError("UNSUPPORTED", said, status=404)
        self._changed()

    async def all(self) -> list[Listed]:
        declared = [Listed(key_id, name, None) for key_id, (name, _) in self._accounts.access_keys.items()]
        return declared + [Listed(row.id, row.principal, row.created) for row in await self._rows.all()]


def _place(key_id: str, principal: str) -> str:
    """Whose it is is sealed, too: nobody gives it to another account by changing the row."""
    return f"access_key {key_id} of {principal}"
