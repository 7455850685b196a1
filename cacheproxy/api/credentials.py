"""What credentials prove (callers.Authenticator)."""

from __future__ import annotations

from typing import Protocol

from cacheproxy.api.callers import Identity
from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login, parse_basic, parse_bearer
from cacheproxy.core.rights import Principal
from cacheproxy.core.scopes import Token, rights_of
from cacheproxy.registry.accounts import Accounts


class Believed(Protocol):
    def verify(self, text: str) -> Token | None:
        """What a token says; None unless it is one of ours, and of now."""
        ...


class Credentials:
    def __init__(self, accounts: Accounts, tokens: Believed) -> None:
        self._accounts = accounts
        self._tokens = tokens

    async def identify(self, authorization: str, address: Address | None) -> Identity | None:
        login = parse_basic(authorization)
        if login is not None:
            principal = await self.login(login, address)
            return None if principal is None else Identity(principal)
        text = parse_bearer(authorization)
        token = None if text is None else self._tokens.verify(text)
        return None if token is None else await self._bearer(token)

    async def login(self, login: Login, address: Address | None) -> Principal | None:
        """Raises OCIError 429 for who guesses passwords."""
        return await self._accounts.login(login, address)

    async def _bearer(self, token: Token) -> Identity | None:
        principal = None if token.subject is None else await self._accounts.named(token.subject)
        if principal is None and token.subject is not None:
            return None
        scope = {name: rights_of(actions) for name, actions in token.actions.items()}
        return Identity(principal, scope, token.until)
