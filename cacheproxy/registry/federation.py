"""Who is known here without a secret of ours: by an issuer's token, or by a certificate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from cacheproxy.core.rights import Principal
from cacheproxy.core.subjects import Claims, Proof, Subjects, Unmapped

ACCOUNT = "user:"
"""How the name of an account begins, whoever vouches for it."""


class Refused(Exception):
    """What was shown proves nobody: why, in one line, for who showed it."""


class Verified(Protocol):
    """What an issuer's token says, once it is proven."""

    @property
    def issuer(self) -> str: ...
    @property
    def claims(self) -> Claims: ...
    @property
    def until(self) -> float: ...


class Issuer(Protocol):
    @property
    def subjects(self) -> Subjects: ...
    async def verify(self, text: str) -> Verified:
        """Raises Refused, and Unavailable."""
        ...


class Issuers(Protocol):
    def of(self, text: str) -> Issuer | None:
        """Whose token that is, if it is what it says."""
        ...

    def named(self, name: str) -> Issuer | None: ...


class Proven(NamedTuple):
    principal: Principal
    proof: Proof
    until: float
    """Wall clock: when what was shown ends."""


class Federation:
    def __init__(
        self,
        issuers: Issuers,
        certificates: Subjects | None,
        account: Callable[[str], Awaitable[Principal | None]],
        clock: Callable[[], float],
    ) -> None:
        """`certificates` None: client certificates mean nothing. `account`: who is called that, now."""
        self._issuers = issuers
        self._certificates = certificates
        self._account = account
        self._clock = clock

    def knows(self, text: str) -> bool:
        """Whether it says that it is a token of one of the issuers: then nobody else is asked about it."""
        return self._issuers.of(text) is not None

    async def token(self, text: str) -> Proven:
        """Raises Refused, Unavailable, and as Database.read."""
        issuer = self._issuers.of(text)
        if issuer is None:
            raise Refused("the token is of an issuer that is not known here")
        verified = await issuer.verify(text)
        needed = issuer.subjects.needed(verified.claims)
        try:
            principal = await self._mapped(issuer.subjects, needed)
        except Unmapped as error:
            raise Refused(f"the token of {verified.issuer} {error}") from None
        return Proven(principal, Proof(verified.issuer, needed), verified.until)

    async def certificate(self, subject: str, claims: Claims, until: float) -> Proven:
        """`until`: when it expires, which may be on a connection that lasts. Raises Refused; see `token`."""
        if self._certificates is None:
            raise Refused("client certificates mean nothing here (any more)")
        if until <= self._clock():
            raise Refused(f"the client certificate {subject} has expired")
        needed = self._certificates.needed(claims)
        try:
            principal = await self._mapped(self._certificates, needed)
        except Unmapped as error:
            raise Refused(f"the client certificate {subject} {error}") from None
        return Proven(principal, Proof("", needed), until)

    async def principal(self, proof: Proof) -> Principal | None:
        """Who that is by now; None: nobody (any more). Raises as Database.read."""
        subjects = self._subjects(proof.issuer)
        try:
            return None if subjects is None else await self._mapped(subjects, proof.claims)
        except Unmapped:
            return None

    def _subjects(self, issuer: str) -> Subjects | None:
        if not issuer:
            return self._certificates
        known = self._issuers.named(issuer)
        return None if known is None else known.subjects

    async def _mapped(self, subjects: Subjects, claims: Claims) -> Principal:
        """Raises Unmapped."""
        principal = subjects.principal(claims)
        if not principal.name.startswith(ACCOUNT):
            return principal
        known = await self._account(principal.name)
        if known is None:
            raise Unmapped(f"is of {principal.name}, and there is no such account (any more)")
        return known
