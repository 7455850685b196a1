"""The hosted side of the tree, put together from the configuration."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import trio

from cacheproxy import config as c
from cacheproxy import issuers, secretkey, wiring
from cacheproxy.api.access_keys import AccessKeyDesk
from cacheproxy.api.answers import BlobAnswers
from cacheproxy.api.callers import Callers
from cacheproxy.api.credentials import Credentials
from cacheproxy.api.dispatch import TokenAnswers
from cacheproxy.api.granting import Granting
from cacheproxy.api.hosting import Hosted
from cacheproxy.api.keeping import Keeping
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.api.uploads import Uploads
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Right, Rule
from cacheproxy.core.routing import Bare, Routes, Virtual
from cacheproxy.core.settings import Settings
from cacheproxy.core.templates import Birth, Template, Templates
from cacheproxy.edge.message import Request
from cacheproxy.registry import htpasswd
from cacheproxy.registry.access_keys import AccessKeys
from cacheproxy.registry.accounts import Account, Accounts
from cacheproxy.registry.blobs import Address
from cacheproxy.registry.collection import Collector
from cacheproxy.registry.grants import Grants, Standing
from cacheproxy.registry.hosting import Hosting
from cacheproxy.registry.issued import Issued
from cacheproxy.registry.keys import SigningKeys
from cacheproxy.registry.passwords import Passwords
from cacheproxy.registry.push import Push
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.repositories import Repositories
from cacheproxy.registry.sealing import Seal
from cacheproxy.registry.space import Space
from cacheproxy.store.access_keys import AccessKeyRows
from cacheproxy.store.accounts import AccountRows
from cacheproxy.store.collection import Collection
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.grants import GrantRows
from cacheproxy.store.hosted import Hosted as HostedRows
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.tokens import TokenRows
from cacheproxy.upstream.credentials import CredentialsFailed, read_secret


class Stores(Protocol):
    """Bytes and rows, open."""

    @property
    def database(self) -> Database: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def records(self) -> Records: ...
    @property
    def content(self) -> Content: ...
    @property
    def address(self) -> Address | None: ...


@dataclass(frozen=True, slots=True)
class Lasting:
    """What no reload replaces."""

    push: Push
    keys: SigningKeys
    issued: Issued
    grants: Grants
    rings: issuers.KeyRings
    collector: Collector

    @classmethod
    def of(cls, stores: Stores, space: Space, ready: ReadyAnswers, clock: Callable[[], float]) -> Lasting:
        """Raises OSError."""
        database, records, node = stores.database, stores.records, secrets.token_hex(8)
        grants = Grants(GrantRows(database), clock)
        return cls(
            Push(Pushing(database, stores.outbox), stores.content.uploads, stores.content, clock),
            SigningKeys(TokenRows(database), Seal(), clock),
            Issued(AccountRows(database), clock, grants.changed),
            grants,
            issuers.KeyRings(),
            Collector(Collection(database, stores.outbox), records, space, ready.clear, clock, node),
        )

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.push.run)
            nursery.start_soon(self.keys.run)
            nursery.start_soon(self.issued.run)
            nursery.start_soon(self.grants.run)
            nursery.start_soon(self.rings.fetching.run)
            nursery.start_soon(self.collector.run)


@dataclass(frozen=True, slots=True)
class Remembered:
    """All that is kept in memory of the rows (store.database.Memory)."""

    ready: ReadyAnswers
    grants: Grants

    def clear(self) -> None:
        self.ready.clear()

    def doubt(self) -> None:
        self.grants.heard()

    def trust(self) -> None:
        self.ready.trust()
        self.grants.heard()

    def distrust(self) -> None:
        self.ready.distrust()


def anybody(config: c.Config) -> bool:
    """Whether somebody has a name here, or may get one by command: grants are for nobody else."""
    access, vouched = config.access, issuers.shown(config) is not None
    return vouched or bool(config.accounts or config.grants or access.oidc) or access.htpasswd is not None


async def accounts(config: c.Config, lasting: Lasting) -> Accounts:
    """With keys for their tokens. Raises StoreError, and CannotStart for a secret that cannot be read."""
    if anybody(config):
        await secretkey.equip(lasting.keys.seal, config.storage)
        await secretkey.look(lasting.keys, config.storage)
        await lasting.grants.look()
    known = await _accounts(config, lasting)
    known.federation = await issuers.federation(config, lasting.rings, known.named, time.time)
    return known


async def _accounts(config: c.Config, lasting: Lasting) -> Accounts:
    """Those with secrets of ours. Raises CannotStart."""
    declared = [await _account(account) for account in config.accounts]
    if config.access.htpasswd is None:
        return Accounts(declared, issued=lasting.issued)
    hashes = await passwords(config.access.htpasswd)
    for account in declared:
        if account.name in hashes:
            said = f"the account {account.name} is also in {config.access.htpasswd}; keep one of the two"
            raise wiring.CannotStart(said)
    return Accounts(declared, Passwords(hashes, time.monotonic), lasting.issued)


async def passwords(file: Path) -> Mapping[str, bytes]:
    """Hashes by name. Raises CannotStart."""
    try:
        data = await trio.to_thread.run_sync(file.read_bytes)
        if len(data) > htpasswd.MAX_FILE:
            raise ValueError(f"it has more than {htpasswd.MAX_FILE} bytes")
        return htpasswd.parse(data.decode())
    except (OSError, ValueError) as error:
        raise wiring.CannotStart(f"access.htpasswd: {file}: {error}") from error


async def _account(account: c.Account) -> Account:
    try:
        secret = await read_secret(wiring.secret(account.secret))
    except CredentialsFailed as error:
        raise wiring.CannotStart(f"account {account.name}: its secret: {error}") from error
    if not secret:
        raise wiring.CannotStart(f"account {account.name}: its secret is empty")
    return Account(account.name, secret, frozenset(account.groups), await _access_key(account))


async def _access_key(account: c.Account) -> tuple[str, str] | None:
    if account.access_key is None or account.secret_key is None:
        return None
    try:
        return account.access_key, await read_secret(wiring.secret(account.secret_key))
    except CredentialsFailed as error:
        raise wiring.CannotStart(f"account {account.name}: its secret_key: {error}") from error


def entry(
    config: c.Config, known: Accounts, lasting: Lasting, routes: Routes, clock: Callable[[], float]
) -> tuple[Callers, TokenAnswers | None]:
    """Who comes in, and where they get their tokens; None: nobody has a name."""
    access, external = wiring.access(config.access), config.server.external_url.rstrip("/")
    if not anybody(config):
        return Callers(access, Standing(rules(config)), None, external, clock), None
    # A cache without accounts does without their memory.
    from cacheproxy.api.tokens import TokenServer
    from cacheproxy.registry.refresh import RefreshTokens
    from cacheproxy.registry.tokens import Tokens

    tokens = Tokens(lasting.keys, config.access.token.seconds, clock)
    refresh = RefreshTokens(lasting.keys.rows, known, config.access.token.refresh, clock)
    credentials = Credentials(known, tokens, known.federation)
    standing = Standing(rules(config), lasting.grants)
    callers = Callers(access, standing, credentials, external, clock)
    return callers, TokenServer(tokens, refresh, credentials, callers, routes)


def rules(config: c.Config) -> Sequence[Rule]:
    return [
        Rule(
            frozenset(grant.to),
            frozenset(map(Right, grant.allow or grant.deny)),
            grant.repositories,
            bool(grant.deny),
            grant.networks,
            place,
        )
        for grant, place in zip(config.grants, config.grants_at, strict=True)
    ]


def templates(config: c.Config) -> Templates:
    return Templates(
        (
            Template(template.prefix, frozenset(map(Birth, template.applied_for)), settings(template))
            for template in config.templates
        ),
        default_upstream=any(upstream.default for upstream in config.upstreams),
    )


def born_by_pull(config: c.Config) -> Callable[[str], Settings]:
    """What is set for a cached repository, by name, when the first of it comes."""
    found = templates(config)
    return lambda name: found.settings(name, Birth.PULL)


def settings(template: c.Template) -> Settings:
    return Settings(
        immutable=template.tag_mutability.immutable,
        except_tags=template.tag_mutability.other,
        sparse=template.sparse,
        description=template.description,
        quota_bytes=template.quota,
        quota_images=template.quota_images,
    )


def repositories(
    config: c.Config, stores: Stores, ready: ReadyAnswers, clock: Callable[[], float]
) -> Repositories:
    return Repositories(HostedRows(stores.database, stores.outbox), templates(config), clock, ready.clear)


def keeping(
    config: c.Config,
    stores: Stores,
    lasting: Lasting,
    known: Accounts,
    ready: ReadyAnswers,
    routes: Routes,
    clock: Callable[[], float],
) -> Mapping[tuple[str, str], Callable[[Request], Awaitable[Any]]]:
    """What the admin socket does with hosted repositories, and with rights in them, by method and path."""
    access, named = wiring.access(config.access), anybody(config)
    granting = Granting(rules(config), lasting.grants, known, access, routes, named=named)
    rows = AccessKeyRows(stores.database)
    pairs = AccessKeys(rows, known, lasting.keys.seal, clock, lasting.grants.changed)
    return {
        **AccessKeyDesk(pairs, named=named).handlers(),
        **Keeping(routes, repositories(config, stores, ready, clock)).handlers(),
        **granting.handlers(),
    }


def hosted(
    config: c.Config,
    stores: Stores,
    pushing: Push,
    quarantine: Quarantine,
    ready: ReadyAnswers,
    routes: Routes,
    clock: Callable[[], float],
) -> Hosted | None:
    """None: nobody has a name, so nobody can push, and what there is can only be cached."""
    if not anybody(config):
        return None
    rows = HostedRows(stores.database, stores.outbox)
    hosting = Hosting(
        rows, stores.records, stores.content, pushing, quarantine, clock, ready.clear, stores.address
    )

    def canonical(name: str, request: Request) -> str | None:
        try:
            meant = routes.meaning(name, None, request.host)
        except OCIError:
            return None
        if isinstance(meant, Virtual):
            return meant.push
        return meant.name if isinstance(meant, Bare) else meant.repository

    return Hosted(
        hosting,
        repositories(config, stores, ready, clock),
        BlobAnswers(config.storage.objects.redirect),
        Uploads(pushing, canonical),
    )
