"""The distribution API, as clients of a pull-through cache use it: one handler an operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cacheproxy.api.answers import JSON, BlobAnswers, Headers, Query, warning_of
from cacheproxy.core import operations as ops
from cacheproxy.core.blob import BlobView
from cacheproxy.core.digest import Digest
from cacheproxy.core.listing import link, page
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.query import first, parse_n
from cacheproxy.core.routing import Target
from cacheproxy.edge.message import Network, Peer, Request, Response
from cacheproxy.registry.blobs import Blobs, Located
from cacheproxy.registry.listings import Listings, PulledList
from cacheproxy.registry.manifests import Manifests, PulledManifest


def ping() -> Response:
    """`GET /v2/`: the API is here, and the caller may use some of it."""
    return Response(200, [("Content-Type", JSON)], b"{}")


@dataclass(frozen=True, slots=True)
class _Pulled:
    """The blobs of one repository of an upstream's (answers.BlobSource)."""

    blobs: Blobs
    target: Target

    async def locate(self, digest: Digest) -> Located:
        return await self.blobs.locate(self.target, digest)

    async def open(self, digest: Digest) -> tuple[BlobView, str]:
        return await self.blobs.open(self.target, digest)

    async def address(self, digest: Digest, found: Located) -> str | None:
        return await self.blobs.address(digest, found)


class Distribution:
    def __init__(
        self, manifests: Manifests, blobs: Blobs, listings: Listings, redirect: Sequence[Network] = ()
    ) -> None:
        """Clients in the networks of `redirect` are sent to the store for what it has, if it does that."""
        self._manifests = manifests
        self._blobs = blobs
        self._listings = listings
        self._answers = BlobAnswers(redirect)
        self._handlers: dict[type, Callable[..., Awaitable[Response]]] = {
            ops.Blob: self._blob,
            ops.Tags: self._tags,
            ops.Referrers: self._referrers,
        }

    async def answer(
        self, operation: ops.Operation, target: Target, request: Request, query: Query
    ) -> Response:
        """Any operation but a manifest's. Raises OCIError and UpstreamError."""
        return await self._handlers[type(operation)](operation, target, request, query)

    async def manifest(self, operation: ops.Manifest, target: Target) -> PulledManifest:
        return await self._manifests.get(target, operation.reference)

    async def _blob(self, operation: ops.Blob, target: Target, request: Request, query: Query) -> Response:
        return await self._answers.answer(_Pulled(self._blobs, target), operation.digest, request)

    async def names(self, target: Target, digest: Digest) -> bool:
        """Whether an image of the repository's that is here names the blob."""
        return await self._blobs.named(target, digest)

    async def tags_of(self, target: Target) -> PulledList:
        return await self._listings.tags(target)

    async def referrers_of(self, target: Target, subject: Digest) -> PulledList:
        return await self._listings.referrers(target, subject)

    def redirects(self, peer: Peer, headers: Mapping[str, str]) -> bool:
        return self._answers.redirects(peer, headers)

    async def _tags(self, operation: ops.Tags, target: Target, request: Request, query: Query) -> Response:
        n, last = parse_n(query.get("n", ())), first(query, "last")
        pulled = await self._listings.tags(target)
        names_, more = page(pulled.items, n, last)
        headers: Headers = [("Content-Type", JSON), *warning_of(pulled.failure)]
        if more and n is not None and names_:
            keep = {"ns": query["ns"][0]} if "ns" in query else {}
            headers.append(("Link", link(request.path, n, names_[-1], keep)))
        body = msgspec.json.encode({"name": operation.name, "tags": names_})
        return Response(200, headers, body, outcome=pulled.outcome)

    async def _referrers(
        self, operation: ops.Referrers, target: Target, request: Request, query: Query
    ) -> Response:
        pulled = await self._listings.referrers(target, operation.digest)
        wanted = first(query, "artifactType")
        headers: Headers = [("Content-Type", OCI_INDEX), *warning_of(pulled.failure)]
        if wanted is not None:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        return Response(200, headers, _referrers_index(pulled, wanted), outcome=pulled.outcome)


def _referrers_index(pulled: PulledList, artifact_type: str | None) -> bytes:
    listed: list[dict[str, Any]] = [
        item for item in pulled.items if artifact_type is None or item.get("artifactType") == artifact_type
    ]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})
