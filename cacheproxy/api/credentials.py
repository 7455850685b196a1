"""What credentials prove (callers.Authenticator)."""

from __future__ import annotations

from cacheproxy.api.callers import Identity
from cacheproxy.core.credentials import parse_basic
from cacheproxy.registry.accounts import Accounts


class Credentials:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def identify(self, authorization: str) -> Identity | None:
        login = parse_basic(authorization)
        principal = None if login is None else self._accounts.login(login)
        return None if principal is None else Identity(principal)
