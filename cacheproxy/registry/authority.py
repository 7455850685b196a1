"""Who may read what of an upstream that decides for itself: each caller, with its own login there.

A caller's login is exchanged at the upstream, once a repository, and what came of it is kept in memory, for
five minutes at most. By it the upstream is asked, once a repository, whether the caller may read it: only its
answer proves that. Both end together, so whose right ended upstream is refused within five minutes, even if
the upstream goes on believing what it gave. An upstream that cannot be asked changes nothing in between.

The password itself is kept only where the upstream wants nothing else (Basic), and never leaves memory.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial as bind
from math import ceil
from typing import Any

import trio

from cacheproxy.core import operations as ops
from cacheproxy.core.access import Address
from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.flights import Flights
from cacheproxy.registry.guesses import Guesses
from cacheproxy.upstream.credentials import Credentials
from cacheproxy.upstream.delegation import Delegation, Held
from cacheproxy.upstream.registry import Registry

PROVEN_FOR = 300.0
"""Seconds from when the upstream gave a caller something to ask with."""

RENEWED_FROM = 150.0
"""Seconds that are left of it, below which a new one is asked for: a client keeps its token to the end."""

EXCHANGE_SECONDS = 20.0
"""For the upstream, to give one."""

MOST = 4096
"""Tickets, and permits, that are kept; the oldest go first."""


@dataclass(slots=True, eq=False)
class Permit:
    """What one login was given for one repository."""

    header: str | None = field(repr=False)
    """Authorization for the upstream; None: it asks nobody for anything."""
    until: float
    """By trio's clock."""
    proven: bool = False
    """The upstream answered to it, in that repository."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """What a caller shows from then on."""

    name: str | None
    """None: it gave none."""
    permits: Mapping[str, Permit]
    """By repository, as the upstream calls it."""
    until: float


class Tickets:
    """What callers of one upstream were given. It outlasts a reload, as the upstream's client does."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._tickets: OrderedDict[bytes, Ticket] = OrderedDict()
        self.permits: OrderedDict[tuple[bytes, str | None], Permit] = OrderedDict()
        """By login, as `mark` has it, and repository."""
        self.guesses = Guesses()

    def mark(self, login: Login | None) -> bytes:
        """The same for the same login only, and nothing that could be taken back to it."""
        said = b"" if login is None else f"{login.name}:{login.password}".encode()
        return hmac.digest(self._key, said, "sha256")

    def keep(self, login: Login | None, repository: str | None, permit: Permit) -> None:
        _put(self.permits, (self.mark(login), repository), permit)

    def give(self, ticket: Ticket) -> str:
        text = secrets.token_urlsafe(32)
        _put(self._tickets, _hash(text), ticket)
        return text

    def find(self, text: str) -> Ticket | None:
        """None: it is none of ours, or not any more."""
        ticket = self._tickets.get(_hash(text))
        return ticket if ticket is not None and trio.current_time() < ticket.until else None


class Authority:
    def __init__(self, registry: Registry, tickets: Tickets, nursery: trio.Nursery) -> None:
        """The registry is asked by its callers. `nursery` outlasts every call."""
        assert registry.delegation is not None
        self.upstream = registry.name
        self._registry = registry
        self._delegation: Delegation = registry.delegation
        self._tickets = tickets
        self._exchanges = Flights[Permit](nursery)
        self._proofs = Flights[None](nursery)
        self.find = tickets.find

    async def ticket(
        self, login: Login | None, repositories: Sequence[str], address: Address | None
    ) -> tuple[str, Ticket]:
        """For those of the repositories for which the upstream gives something; the text stands for it.

        Raises UpstreamError: AUTH with 401 for a login that proves nothing; OCIError 429 for who guesses.
        """
        self._unhurried(login, address)
        permits: dict[str, Permit] = {}
        ends = [trio.current_time() + PROVEN_FOR]
        try:
            for repository in dict.fromkeys(repositories):
                permit = await self._permitted(login, repository)
                if permit is not None:
                    permits[repository] = permit
            if not repositories:
                ends.append((await self._permit(login, None)).until)
        except UpstreamError as error:
            if login is not None and _wrong(error):
                self._tickets.guesses.wrong(login.name, address, trio.current_time())
            raise
        if login is not None:
            self._tickets.guesses.right(login.name, address)
        until = min(ends + [permit.until for permit in permits.values()])
        ticket = Ticket(None if login is None else login.name, permits, until)
        return self._tickets.give(ticket), ticket

    async def prove(self, permit: Permit, operation: ops.Operation, repository: str) -> None:
        """That its caller may read the repository, which it wants to do by this operation.

        Raises UpstreamError: AUTH when it may not, MISSING when there is nothing that could tell.
        """
        if permit.proven:
            return
        ask = bind(self._prove, permit, operation, repository)
        await self._proofs.share((permit, operation), ask)

    # What a login gets.

    def _unhurried(self, login: Login | None, address: Address | None) -> None:
        """Raises OCIError: we guess no passwords upstream for anybody."""
        if login is None:
            return
        pause = self._tickets.guesses.pause(login.name, address, trio.current_time())
        if pause > 0:
            said = f"{self.upstream} refused {login.name}, or others from {address}, too often; try later"
            raise OCIError("TOOMANYREQUESTS", said, headers=(("Retry-After", str(ceil(pause))),))

    async def _permitted(self, login: Login | None, repository: str) -> Permit | None:
        """None: the upstream knows the login, and gives it nothing for that repository."""
        try:
            return await self._permit(login, repository)
        except UpstreamError as error:
            if error.cause is not Cause.AUTH or _wrong(error):
                raise
            return None

    async def _permit(self, login: Login | None, repository: str | None) -> Permit:
        key = (self._tickets.mark(login), repository)
        held = self._tickets.permits.get(key)
        left = 0.0 if held is None else held.until - trio.current_time()
        if held is not None and left > RENEWED_FROM:
            return held
        try:
            permit, _ = await self._exchanges.share(key, bind(self._exchange, login, repository))
        except UpstreamError as error:
            if error.cause is Cause.AUTH:
                self._tickets.permits.pop(key, None)
            elif held is not None and trio.current_time() < held.until:
                return held
            raise
        return permit

    async def _exchange(self, login: Login | None, repository: str | None) -> Permit:
        began = trio.current_time()
        credentials = None if login is None else Credentials(login.name, login.password)
        held: Held = await self._delegation.exchange(credentials, repository, began + EXCHANGE_SECONDS)
        permit = Permit(held.header, began + min(held.seconds, PROVEN_FOR))
        self._tickets.keep(login, repository, permit)
        return permit

    # What it may read.

    async def _prove(self, permit: Permit, operation: ops.Operation, repository: str) -> None:
        presented = self._registry.presenting(permit.header)
        try:
            await _QUESTIONS[type(operation)](presented, repository, operation)
        except UpstreamError as error:
            if error.cause is not Cause.MISSING:
                raise
            await _readable(presented, repository, error)
        permit.proven = True
        self._delegation.lend(repository, permit.header, permit.until)


async def _readable(presented: Registry, repository: str, missing: UpstreamError) -> None:
    """What is not there (any more) may be here: that the repository can be read is proof enough."""
    try:
        await presented.has_tags(repository)
    except UpstreamError as error:
        raise missing if error.cause is Cause.MISSING else error from None


async def _about_manifest(presented: Registry, repository: str, operation: ops.Manifest) -> None:
    await presented.head_manifest(repository, operation.reference)


async def _about_blob(presented: Registry, repository: str, operation: ops.Blob) -> None:
    await presented.head_blob(repository, operation.digest)


async def _about_tags(presented: Registry, repository: str, operation: ops.Tags) -> None:
    await presented.has_tags(repository)


async def _about_referrers(presented: Registry, repository: str, operation: ops.Referrers) -> None:
    await presented.head_manifest(repository, operation.digest)


_QUESTIONS: Mapping[type, Callable[[Registry, str, Any], Awaitable[None]]] = {
    ops.Manifest: _about_manifest,
    ops.Blob: _about_blob,
    ops.Tags: _about_tags,
    ops.Referrers: _about_referrers,
}
"""What an upstream answers to who may read, and to nobody else: the caller's own question, for little."""


def _wrong(error: UpstreamError) -> bool:
    return error.cause is Cause.AUTH and error.status == 401


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _put(table: OrderedDict[Any, Any], key: object, value: object) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > MOST:
        table.popitem(last=False)
