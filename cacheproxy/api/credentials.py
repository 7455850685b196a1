"""What credentials prove (callers.Authenticator)."""

from __future__ import annotations

from typing import Protocol

from cacheproxy.api.callers import Identity
from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login, parse_basic, parse_bearer
from cacheproxy.core.rights import Principal
from cacheproxy.core.scopes import Token, rights_of
from cacheproxy.edge.message import ClientCertificate
from cacheproxy.registry.accounts import Accounts
from cacheproxy.registry.federation import Federation, Proven


class Believed(Protocol):
    def verify(self, text: str) -> Token | None:
        """What a token says; None unless it is one of ours, and of now."""
        ...


class Credentials:
    def __init__(self, accounts: Accounts, tokens: Believed, federation: Federation | None = None) -> None:
        """`federation` None: nobody vouches for anybody, only secrets of ours count."""
        self._accounts = accounts
        self._tokens = tokens
        self._federation = federation

    async def identify(self, authorization: str, address: Address | None) -> Identity | None:
        """Raises Refused, with the reason, for an issuer's token."""
        login = parse_basic(authorization)
        if login is not None:
            return _identity(await self.login(login, address))
        text = parse_bearer(authorization)
        if text is None:
            return None
        token = self._tokens.verify(text)
        return _identity(await self._vouched(text)) if token is None else await self._bearer(token)

    async def login(self, login: Login, address: Address | None) -> Principal | Proven | None:
        """An issuer's token stands for a password, whatever the name. Raises Refused for one that is not
        good, OCIError 429 for who guesses passwords.
        """
        return await self._vouched(login.password) or await self._accounts.login(login, address)

    async def certificate(self, shown: ClientCertificate) -> Identity | None:
        """Raises Refused, with the reason."""
        return _identity(await self.shown(shown))

    async def shown(self, shown: ClientCertificate) -> Proven | None:
        """Whose that is; None: certificates mean nothing here. Raises Refused, with the reason."""
        if self._federation is None:
            return None
        claims: dict[str, tuple[str, ...]] = {}
        for name, value in shown.names:
            claims[name] = (*claims.get(name, ()), value)
        return await self._federation.certificate(shown.subject, claims, shown.until)

    async def _vouched(self, text: str) -> Proven | None:
        """None: it is no issuer's token, nor says that it is."""
        if self._federation is None or not self._federation.knows(text):
            return None
        return await self._federation.token(text)

    async def _bearer(self, token: Token) -> Identity | None:
        principal = await self._subject(token)
        if token.subject != (None if principal is None else principal.name):
            return None
        scope = {name: rights_of(actions) for name, actions in token.actions.items()}
        return Identity(principal, scope, token.until)

    async def _subject(self, token: Token) -> Principal | None:
        """Who that is by now."""
        if token.subject is None:
            return None
        if token.proof is None:
            return await self._accounts.named(token.subject)
        return None if self._federation is None else await self._federation.principal(token.proof)


def _identity(who: Principal | Proven | None) -> Identity | None:
    if isinstance(who, Proven):
        return Identity(who.principal, until=who.until)
    return None if who is None else Identity(who)
