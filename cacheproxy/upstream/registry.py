"""The client of one upstream registry: the reading half of the distribution specification.

Everything that fails is an UpstreamError. What is believed is proven: the digest of a manifest is that of the
bytes that came, whatever the headers say.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial as bind
from typing import Any

import httpx
import trio

from cacheproxy.core import operations
from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.manifest import MAX_MANIFEST
from cacheproxy.core.media import ACCEPT, OCI_INDEX
from cacheproxy.upstream import blobstream, lists
from cacheproxy.upstream.asking import Answer, Asker, Call, Endpoint
from cacheproxy.upstream.blobstream import BlobStream
from cacheproxy.upstream.credentials import Account, server_name
from cacheproxy.upstream.delegation import Delegation, Lent, Presented, pull
from cacheproxy.upstream.exchange import Sender
from cacheproxy.upstream.mirrors import Mirrors
from cacheproxy.upstream.pacing import Health, Lane, Paces, Slots
from cacheproxy.upstream.realms import Realms
from cacheproxy.upstream.settings import FixedLogin, UpstreamSettings
from cacheproxy.upstream.tokens import Authorizer
from cacheproxy.upstream.tokenserver import TokenServer

_HEAD = frozenset({200, 404, 405, 501})
"""Statuses of a HEAD that do not end the matter: some registries do not know it, others answer GET only."""


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    body: bytes
    media_type: str | None
    """Content-Type without parameters, as the upstream says."""
    digest: Digest
    """Of `body`, computed here; the reference, if that was a digest."""


@dataclass(frozen=True, slots=True)
class Head:
    digest: Digest
    """The reference if that is a digest, else what the upstream says: a hint, proven only with `manifest`."""
    media_type: str | None
    size: int | None
    manifest: FetchedManifest | None = None
    """There when HEAD told nothing and GET was used instead: it need not be asked for again."""


class Registry:
    def __init__(
        self, settings: UpstreamSettings, transport: httpx.AsyncBaseTransport, nursery: trio.Nursery
    ) -> None:
        """Sends nothing until it is asked. `nursery` runs renewals of tokens, and outlives every use."""
        self.name = settings.name
        self.registry = settings.registry
        self._settings = settings
        sender = Sender(settings.name, transport, settings.stall)
        slots, paces = Slots(settings.name, settings.connections), Paces(settings.name)
        server = TokenServer(settings.name, settings.user_agent, sender, slots, paces)
        self._asker = Asker(settings, sender, slots)
        self.delegation: Delegation | None = None
        """How its callers' own logins are used; None: ours is."""
        if settings.by_caller:
            self.endpoints, self.delegation = _delegated(settings, paces, server, self._asker)
        else:
            self.endpoints = tuple(
                _endpoint(settings, url, paces, server, nursery) for url in (settings.url, *settings.mirrors)
            )
        self._mirrors = Mirrors(settings.name, self.endpoints, self._asker)
        self._slots = slots
        self._paces = paces

    @property
    def health(self) -> list[Health]:
        """Of its address and its mirrors, in order."""
        return [endpoint.pace.health for endpoint in self.endpoints]

    @property
    def close(self) -> Callable[[], None]:
        """To call when nothing is asked any more. Does not hold the registry itself."""
        return self._paces.retire

    def presenting(self, header: str | None) -> Registry:
        """The same upstream, asked with this Authorization and nothing else."""
        presented = copy.copy(self)
        authorizer = Presented(self.name, header)
        presented.endpoints = tuple(replace(each, authorizer=authorizer) for each in self.endpoints)
        presented._mirrors = Mirrors(self.name, presented.endpoints, self._asker)
        return presented

    async def head_manifest(
        self, repository: str, reference: Digest | str, *, patience: float | None = None
    ) -> Head:
        """What the reference means upstream now. `patience` is seconds, for all of it."""
        deadline = self._deadline(patience)

        async def read(answer: Answer) -> Head | None:
            return _head(answer, reference)

        call = self._manifest_call("HEAD", repository, reference, deadline, _HEAD)
        head = await self._mirrors.ask(call, read)
        if head is not None:
            return head
        fetched = await self._get_manifest(repository, reference, deadline)
        return Head(fetched.digest, fetched.media_type, len(fetched.body), fetched)

    async def get_manifest(
        self, repository: str, reference: Digest | str, *, patience: float | None = None
    ) -> FetchedManifest:
        """At most 4 MiB, verified against the reference when that is a digest. `patience` as above."""
        return await self._get_manifest(repository, reference, self._deadline(patience))

    async def head_blob(self, repository: str, digest: Digest) -> int:
        """The blob's size in bytes."""

        async def read_head(answer: Answer) -> int | None:
            return answer.length if answer.status == 200 else None

        async def read_size(answer: Answer) -> int:
            return blobstream.size(answer)

        target = operations.path(operations.Blob(repository, digest))
        scope, deadline = pull(repository), self._deadline(None)
        call = Call("HEAD", target, "blob", scope, accepts=_HEAD, deadline=deadline)
        size = await self._mirrors.ask(call, read_head)
        if size is not None:
            return size
        first_byte = Call(
            "GET",
            target,
            "blob",
            scope,
            headers=[("Range", "bytes=0-0")],
            accepts=frozenset({200, 206, 416}),
            deadline=deadline,
        )
        return await self._mirrors.ask(first_byte, read_size)

    @asynccontextmanager
    async def open_blob(
        self,
        repository: str,
        digest: Digest,
        *,
        endpoint: int,
        start: int = 0,
        stop: int | None = None,
        etag: str | None = None,
    ) -> AsyncIterator[BlobStream]:
        """The blob's bytes from `start` to `stop`, or all of it where the endpoint does no ranges.

        `endpoint` is an index of `endpoints`; `etag` is the strong one by which that endpoint knows the blob.
        Holds one of the upstream's blob slots until it is left. Asks once: who knows what has come knows best
        how to go on after a failure.
        """
        wanted = blobstream.range_header(start, stop)
        headers = [] if wanted is None else [("Range", wanted)]
        if wanted is not None and etag is not None:
            headers.append(("If-Range", etag))
        call = Call(
            "GET",
            operations.path(operations.Blob(repository, digest)),
            "blob",
            pull(repository),
            headers=headers,
            accepts=frozenset({200, 206}),
            lane=Lane.BLOB,
        )
        async with self._asker.ask(self.endpoints[endpoint], call) as answer:
            in_line = bind(self._slots.wanted, Lane.BLOB)
            yield blobstream.opened(answer, endpoint, in_line, ranged=wanted is not None)

    async def ping(self, endpoint: int, patience: float) -> float | None:
        """That an endpoint speaks the API, and takes our credentials where it asks for some; in `patience` s.

        `endpoint` is an index of `endpoints`. Returns its clock, in seconds since the epoch; None: it tells
        none.
        """
        if self.delegation is not None:
            await self.delegation.heard(self._deadline(patience))
            return None
        call = Call("GET", operations.path(operations.Ping()), "ping", "", deadline=self._deadline(patience))
        async with self._asker.ask(self.endpoints[endpoint], call) as answer:
            return _date(answer)

    async def has_tags(self, repository: str) -> None:
        """That the repository can be read at all. Raises UpstreamError."""

        async def read(answer: Answer) -> None:
            return None

        target = f"{operations.path(operations.Tags(repository))}?n=1"
        call = Call("GET", target, "tags", pull(repository), deadline=self._deadline(None))
        await self._mirrors.ask(call, read)

    async def list_tags(self, repository: str) -> list[str]:
        """All tags, in the upstream's order; the first 100 000 of them where there are more."""
        target = operations.path(operations.Tags(repository))
        call = Call("GET", target, "tags", pull(repository))
        return await lists.tags(self._mirrors, call, lambda: self._deadline(None))

    async def referrers(self, repository: str, digest: Digest) -> list[dict[str, Any]] | None:
        """The descriptors of what refers to the manifest; None where the upstream has no referrers API."""
        target = operations.path(operations.Referrers(repository, digest))
        call = Call("GET", target, "referrers", pull(repository), [("Accept", OCI_INDEX)])
        return await lists.referrers(self._mirrors, call, lambda: self._deadline(None))

    def _deadline(self, patience: float | None) -> float:
        control = self._settings.control
        return trio.current_time() + (control if patience is None else min(patience, control))

    def _manifest_call(
        self, method: str, repository: str, reference: Digest | str, deadline: float, accepts: frozenset[int]
    ) -> Call:
        target = operations.path(operations.Manifest(repository, reference))
        scope = pull(repository)
        return Call(
            method, target, "manifest", scope, [("Accept", ACCEPT)], accepts=accepts, deadline=deadline
        )

    async def _get_manifest(
        self, repository: str, reference: Digest | str, deadline: float
    ) -> FetchedManifest:
        async def read(answer: Answer) -> FetchedManifest:
            return await _manifest(answer, reference)

        call = self._manifest_call("GET", repository, reference, deadline, frozenset({200}))
        return await self._mirrors.ask(call, read)


def _endpoint(
    settings: UpstreamSettings, url: str, paces: Paces, server: TokenServer, nursery: trio.Nursery
) -> Endpoint:
    at = httpx.URL(url)
    ours = url == settings.url or not isinstance(settings.credentials, FixedLogin)
    account = Account(
        settings.credentials if ours else None, server_name(settings.registry, at.netloc.decode("ascii"))
    )
    realms = Realms(at, settings.token_hosts, settings.name)
    return Endpoint(at, paces.of(at), Authorizer(settings.name, account, realms, server, nursery))


def _delegated(
    settings: UpstreamSettings, paces: Paces, server: TokenServer, asker: Asker
) -> tuple[tuple[Endpoint, ...], Delegation]:
    """One endpoint: no mirror gets what callers have for it."""
    at, lent = httpx.URL(settings.url), Lent(settings.name)
    endpoint = Endpoint(at, paces.of(at), lent)
    realms = Realms(at, settings.token_hosts, settings.name)
    return (endpoint,), Delegation(settings.name, endpoint, asker, realms, server, lent)


def _date(answer: Answer) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return None


def _media_type(answer: Answer) -> str | None:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() or None


def _head(answer: Answer, reference: Digest | str) -> Head | None:
    """None: it told nothing that we could go by."""
    if answer.status != 200:
        return None
    if isinstance(reference, Digest):
        return Head(reference, _media_type(answer), answer.length)
    try:
        digest = Digest.parse(answer.headers.get("docker-content-digest", ""))
    except InvalidDigest:
        return None
    return Head(digest, _media_type(answer), answer.length)


async def _manifest(answer: Answer, reference: Digest | str) -> FetchedManifest:
    if (answer.length or 0) > MAX_MANIFEST:
        what = f"sends a manifest of {answer.length} bytes, more than {MAX_MANIFEST}"
        raise UpstreamError(Cause.PROTOCOL, what, answer.upstream)
    body = await answer.read(MAX_MANIFEST)
    if not isinstance(reference, Digest):
        return FetchedManifest(body, _media_type(answer), Digest.of(body))
    actual = Digest.of(body, reference.algorithm)
    if actual != reference:
        what = f"sends a manifest whose digest is {actual} where {reference} was asked for"
        raise UpstreamError(Cause.PROTOCOL, what, answer.upstream)
    return FetchedManifest(body, _media_type(answer), reference)
