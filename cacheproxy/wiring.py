"""From the configuration's words to the values that components take."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import trio

from cacheproxy import config as c
from cacheproxy.core.access import Access, Grant
from cacheproxy.core.failures import Cause
from cacheproxy.core.freshness import FreshRule, StaleRule
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.routing import Routes, UpstreamRoute, VirtualRoute
from cacheproxy.core.settings import Settings
from cacheproxy.edge.certificate import Certificate, CertificateError
from cacheproxy.edge.message import Application
from cacheproxy.edge.message import Log as RequestLog
from cacheproxy.registry.fill import FillRules
from cacheproxy.registry.origin import Origin
from cacheproxy.registry.scrub import ScrubRules
from cacheproxy.store.audit import Rows
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.errors import StoreError
from cacheproxy.store.listing import Folder, Listing, Objects
from cacheproxy.store.mark import BucketMark, FolderMark, Mark
from cacheproxy.store.sqlite import SQLite, SQLiteRows
from cacheproxy.upstream import settings as s
from cacheproxy.upstream.credentials import CredentialsFailed, read_secret
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.proxy import Proxy
from cacheproxy.upstream.registry import Registry
from cacheproxy.upstream.tls import client_context
from cacheproxy.upstream.transport import OwnedTransport

if TYPE_CHECKING:
    from cacheproxy.store.bucket import Bucket
    from cacheproxy.store.postgres import Postgres

HTTPS = 443


class CannotStart(Exception):
    """What the configuration names cannot be used; the message says what, and where it is named."""


LATEST_FRESH = 300.0
FRESH = 3600.0
"""Seconds a tag is believed where no rule of the upstream says otherwise: "latest" moves, most others seldom
do.
"""

DEFAULT_FRESH = (FreshRule(Patterns(("latest",)), LATEST_FRESH), FreshRule(Patterns(("**",)), FRESH))


def routes(config: c.Config) -> Routes:
    return Routes(
        [
            UpstreamRoute(
                u.registry,
                u.prefix,
                u.hosts,
                library=u.library,
                default=u.default,
                by_caller=u.by_caller,
            )
            for u in config.upstreams
        ],
        own_hosts=config.server.own_hosts,
        virtuals=[VirtualRoute(each.prefix, each.members, each.push) for each in config.virtuals],
    )


def access(section: c.Access) -> Access:
    return Access([Grant(entry.networks, entry.repositories) for entry in section.anonymous_pull])


def open_database(section: c.Storage) -> AbstractAsyncContextManager[Database]:
    """Raises CannotStart; opening it raises DatabaseRefused and OSError."""
    if isinstance(section.database, Path):
        return SQLite.open(section.database)
    return _postgres().open(section.database)


def _postgres() -> type[Postgres]:
    try:
        from cacheproxy.store.postgres import Postgres
    except ImportError as error:
        raise CannotStart(
            "storage.database is a PostgreSQL, which takes more than the plain installation: install"
            f" cacheproxy[postgres] ({error})"
        ) from error
    return Postgres


def look_at_rows(section: c.Storage) -> AbstractAsyncContextManager[Rows]:
    """Only to look: nothing is made. Raises CannotStart; opening it raises StoreError and OSError."""
    if isinstance(section.database, Path):
        return SQLiteRows.open(section.database)
    return _postgres().look(section.database)


Watch = Callable[[Application, RequestLog], tuple[Application, RequestLog]]
"""An application and the log of its requests, with what it does told to a collector."""


@asynccontextmanager
async def open_traces(section: c.Traces) -> AsyncIterator[Watch]:
    """Where nothing is traced, both are what they were. Raises CannotStart; nothing is connected to."""
    if not section.endpoint:
        yield lambda application, log: (application, log)
        return
    try:
        from cacheproxy.tracing.collector import collecting
        from cacheproxy.tracing.door import Sampling
    except ImportError as error:
        raise CannotStart(
            "traces.endpoint names a collector, which takes more than the plain installation: install"
            f" cacheproxy[otel] ({error})"
        ) from error
    sampling = Sampling(section.sample, section.trusted_callers)
    async with collecting(section.endpoint, sampling) as traced:
        yield traced


class Bytes(NamedTuple):
    """Where blobs are kept."""

    content: Content
    address: Callable[[str, int], Awaitable[str]] | None
    """Where clients may fetch a blob themselves (store.addresses); None: nowhere."""


@asynccontextmanager
async def open_content(section: c.Storage) -> AsyncIterator[Bytes]:
    """What a bucket cannot do is found here. Raises CannotStart, OSError, StoreError."""
    if isinstance(section.blobs, Path):
        yield Bytes(await trio.to_thread.run_sync(DiskContent, section.blobs), None)
        return
    try:
        from cacheproxy.store import addresses, objects, probe
    except ImportError as error:
        raise CannotStart(
            "storage.blobs is an object store, which takes more than the plain installation: install"
            f" cacheproxy[objects] ({error})"
        ) from error
    bucket = await _bucket(section.blobs, section.objects)
    redirecting = bool(section.objects.redirect)
    await trio.to_thread.run_sync(partial(probe.prove, bucket, presigned=redirecting))
    async with objects.open_objects(bucket, section.partial) as content:
        yield Bytes(content, addresses.Addresses(bucket).get)


async def listing(section: c.Storage) -> Listing:
    """What is stored, only to look. Raises CannotStart, StoreUnreachable, ImportError."""
    if isinstance(section.blobs, Path):
        return Folder(section.blobs)
    return Objects(await _bucket(section.blobs, section.objects))


async def mark(section: c.Storage) -> Mark:
    """Beside the blobs. Nothing is asked yet. Raises CannotStart, StoreUnreachable, ImportError."""
    if isinstance(section.blobs, Path):
        return FolderMark(section.blobs)
    return BucketMark(await _bucket(section.blobs, section.objects))


async def prove_content(section: c.Storage) -> None:
    """That the bucket, if there is one, does all that is asked of it.

    Raises CannotStart, StoreError, ImportError.
    """
    if isinstance(section.blobs, Path):
        return
    from cacheproxy.store import probe

    bucket = await _bucket(section.blobs, section.objects)
    await trio.to_thread.run_sync(partial(probe.prove, bucket, presigned=bool(section.objects.redirect)))


async def prove_redirects(before: c.Storage, after: c.Storage) -> None:
    """That the bucket does what is asked of it since clients are redirected. Raises CannotStart."""
    if after.objects.redirect and not before.objects.redirect:
        try:
            await prove_content(after)
        except StoreError as error:
            raise CannotStart(f"storage.objects.redirect: {error}") from error


ENDPOINT_NAMES = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
"""What obstore calls the address of a store."""


async def open_bucket(url: c.BucketURL, section: c.Objects) -> Bucket:
    """It is not contacted, but its keys are read. Raises CannotStart."""
    try:
        return await _bucket(url, section)
    except ImportError as error:
        raise CannotStart(f"storage.blobs: install cacheproxy[objects] ({error})") from error


async def _bucket(url: c.BucketURL, section: c.Objects) -> Bucket:
    from cacheproxy.store import bucket, bucketkeys

    settings: dict[str, str] = {}
    if section.credentials is not None:
        try:
            settings |= bucketkeys.parse(url.scheme, await read_secret(secret(section.credentials)))
        except CredentialsFailed as error:
            raise CannotStart(f"storage.objects.credentials: {error}") from error
        except bucketkeys.BadKeys as error:
            raise CannotStart(f"storage.objects.credentials: what is there {error}") from error
    if section.endpoint:
        settings[ENDPOINT_NAMES[url.scheme]] = section.endpoint
    if section.region:
        settings["region"] = section.region
    plain = section.endpoint.startswith("http://")
    return bucket.connect(url.scheme, url.bucket, url.prefix, settings, plain=plain)


def fill_rules(section: c.Cache) -> FillRules:
    parallel = section.parallel
    if parallel is None:
        return FillRules(parallel_from=None, finish_share=section.finish_fill)
    return FillRules(parallel.size, parallel.ranges, section.finish_fill)


def scrub_rules(cache: c.Cache, storage: c.Storage) -> ScrubRules:
    """Of a bucket nothing is read unasked, unless that is wanted."""
    section = cache.scrub or c.Scrub()
    unasked = cache.scrub is not None and (section.buckets or isinstance(storage.blobs, Path))
    return ScrubRules(section.every if unasked else math.inf, section.rate)


def fresh_rules(upstream: c.Upstream) -> tuple[FreshRule, ...]:
    own = tuple(FreshRule(rule.tags, rule.seconds) for rule in upstream.fresh)
    return own + DEFAULT_FRESH


def stale_rule(upstream: c.Upstream) -> StaleRule:
    """Whose own right counts is not served what the upstream refuses, unless that is written."""
    rule = upstream.stale_if_error
    causes = frozenset(Cause(cause) for cause in rule.causes)
    if upstream.by_caller and "causes" not in rule.model_fields_set:
        causes -= {Cause.AUTH}
    return StaleRule(rule.seconds, causes)


def hidden_by(upstreams: Iterable[c.Upstream]) -> dict[str, frozenset[int]]:
    """By upstream, the statuses that mean "there is none" too. With an account they may mean that it lost a
    right, and then nothing is looked for elsewhere."""
    return {upstream.prefix: upstream.hides for upstream in upstreams if upstream.credentials is None}


def keep(upstreams: Iterable[c.Upstream]) -> dict[str, float]:
    """Seconds since the last pull, by upstream."""
    return {upstream.prefix: upstream.keep for upstream in upstreams}


def origin(
    upstream: c.Upstream, registries: Mapping[str, Registry], born: Callable[[str], Settings]
) -> Origin:
    registry = registries[upstream.prefix]
    return Origin(registry, fresh_rules(upstream), stale_rule(upstream), upstream.missing_for, born)


def upstream_settings(upstream: c.Upstream, via: str) -> s.UpstreamSettings:
    return s.UpstreamSettings(
        name=upstream.prefix,
        registry=upstream.registry,
        url=upstream.url,
        mirrors=upstream.mirrors,
        token_hosts=upstream.token_hosts,
        credentials=None if upstream.credentials is None else _login(upstream.credentials),
        by_caller=upstream.by_caller,
        ca=upstream.ca,
        client_certificate=_certificate(upstream.client_certificate),
        proxy=upstream.proxy,
        allow_addresses=upstream.allow_addresses,
        connections=upstream.connections,
        via=via,
    )


@asynccontextmanager
async def open_registry(settings: s.UpstreamSettings, nursery: trio.Nursery) -> AsyncIterator[Registry]:
    """A client of the upstream, which is not contacted. Raises CannotStart."""
    proxy = None if settings.proxy is None else Proxy.parse(settings.proxy)
    gate = AddressGate(settings.allow_addresses)
    dialer = Dialer(gate, await _tls(settings), identified=await _identified(settings), proxy=proxy)
    async with OwnedTransport(dialer, max_idle=2 * settings.connections) as transport:
        nursery.start_soon(transport.tidy)
        made = [Registry(settings, transport, nursery)]
        close = made[0].close
        try:
            yield made.pop()  # and not held here: that nobody has it any more can be seen (upstreams.py)
        finally:
            close()


async def _tls(settings: s.UpstreamSettings) -> ssl.SSLContext:
    return await _context(settings, None, None)


async def _identified(settings: s.UpstreamSettings) -> dict[tuple[str, int], ssl.SSLContext]:
    """Who sees our client certificate: the upstream and its mirrors, never where they redirect to."""
    ours = settings.client_certificate
    if ours is None:
        return {}
    try:
        key = None if ours.key is None else (await read_secret(ours.key)).encode()
    except CredentialsFailed as error:
        raise CannotStart(f"upstream {settings.name}: its client_certificate.key: {error}") from error
    context = await _context(settings, ours.certificate, key)
    urls = [urlsplit(url) for url in (settings.url, *settings.mirrors)]
    return {(url.hostname or "", url.port or HTTPS): context for url in urls if url.scheme == "https"}


@cache
def _ordinary_context() -> ssl.SSLContext:
    """Reading the system's authorities takes 20 ms: all upstreams without any of their own share them."""
    return client_context()


async def trusting(ca: Path | None) -> ssl.SSLContext:
    """That trusts the system's authorities, and these. Raises OSError, ssl.SSLError."""
    if ca is None:
        return await trio.to_thread.run_sync(_ordinary_context)
    return await trio.to_thread.run_sync(client_context, ca)


async def _context(
    settings: s.UpstreamSettings, certificate: Path | None, key: bytes | None
) -> ssl.SSLContext:
    if certificate is None and settings.ca is None:
        return await trusting(None)
    try:
        return await trio.to_thread.run_sync(client_context, settings.ca, certificate, key)
    except (OSError, ssl.SSLError) as error:
        what = "ca" if certificate is None else "client_certificate"
        raise CannotStart(f"upstream {settings.name}: its {what} cannot be used: {error}") from error


async def server_certificate(section: c.ServerCertificate | None) -> Certificate | None:
    """What clients are shown. Raises CannotStart."""
    if section is None:
        return None
    where = None if section.key is None else secret(section.key)

    async def read_key() -> bytes:
        if where is None:
            return b""
        try:
            return (await read_secret(where)).encode()
        except CredentialsFailed as error:
            raise CertificateError(f"its key: {error}") from error

    key_file = None if section.key is None else section.key.file
    try:
        return await Certificate.load(section.certificate, read_key, key_file, client_ca=section.client_ca)
    except CertificateError as error:
        raise CannotStart(f"server.tls: {error}") from error


def _certificate(section: c.ClientCertificate | None) -> s.ClientCertificate | None:
    if section is None:
        return None
    return s.ClientCertificate(section.certificate, None if section.key is None else secret(section.key))


def _login(section: c.Credentials) -> s.CredentialSource:
    if section.docker_config is not None:
        return s.DockerConfig(section.docker_config)
    if section.helper is not None:
        return s.LoginHelper(section.helper)
    assert section.username is not None
    assert section.password is not None
    return s.FixedLogin(section.username, secret(section.password))


def secret(section: c.Secret) -> s.Secret:
    if section.file is not None:
        return s.FileSecret(section.file)
    if section.credential is not None:
        return s.CredentialSecret(section.credential)
    assert section.command is not None
    return s.CommandSecret(section.command)
