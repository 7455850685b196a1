"""The distribution API, as clients of a pull-through cache use it: one handler an operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from cacheproxy.core import operations as ops
from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import UpstreamError
from cacheproxy.core.listing import link, page
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.query import first, parse_n
from cacheproxy.core.ranges import content_range, multipart, parse_range
from cacheproxy.core.routing import Target
from cacheproxy.edge.message import BlobBody, Network, Peer, Request, Response
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.listings import Listings, PulledList
from cacheproxy.registry.manifests import Manifests, PulledManifest

JSON = "application/json"
FOREVER = ("Cache-Control", "max-age=31536000, immutable")
"""What a digest names never changes."""

Headers = list[tuple[str, str]]
Query = Mapping[str, Sequence[str]]


def ping() -> Response:
    """`GET /v2/`: the API is here, and the caller may use some of it."""
    return Response(200, [("Content-Type", JSON)], b"{}")


class Distribution:
    def __init__(
        self, manifests: Manifests, blobs: Blobs, listings: Listings, redirect: Sequence[Network] = ()
    ) -> None:
        """Clients in the networks of `redirect` are sent to the store for what it has, if it does that."""
        self._manifests = manifests
        self._blobs = blobs
        self._listings = listings
        self._redirect = redirect
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
        headers: Headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", operation.digest),
            ("ETag", f'"{operation.digest}"'),
            ("Accept-Ranges", "bytes"),
            FOREVER,
        ]
        if request.method == "HEAD" or names(request.headers.get("if-none-match"), operation.digest):
            found = await self._blobs.locate(target, operation.digest)
            status = 200 if request.method == "HEAD" else 304
            length = found.size if request.method == "HEAD" else None
            return Response(status, headers, length=length, outcome=found.outcome)
        if self.redirects(request.peer, request.headers):
            elsewhere = await self._elsewhere(operation.digest, target, request)
            if elsewhere is not None:
                return elsewhere
        view, outcome = await self._blobs.open(target, operation.digest)
        try:
            status, headers, sent = _bytes_of(view, request, headers)
            await _first_byte(sent)
        except BaseException:
            view.close()
            raise
        return Response(status, headers, sent, outcome=outcome)

    def redirects(self, peer: Peer, headers: Mapping[str, str]) -> bool:
        """Whether the client is one of those that reach the store, and its question one for the store.

        The store has another ETag than ours: an If-Range would get all of the blob there.
        """
        if peer.address is None or peer.forwarded_by_stranger or "if-range" in headers:
            return False
        return any(peer.address in network for network in self._redirect)

    async def _elsewhere(self, digest: Digest, target: Target, request: Request) -> Response | None:
        """A redirect to the store; None where it would not do: several ranges, or nothing stored."""
        found = await self._blobs.locate(target, digest)
        spans = _asked(request, digest, found.size)
        if spans is not None and len(spans) > 1:
            return None
        address = await self._blobs.address(digest, found)
        if address is None:
            return None
        headers: Headers = [
            ("Location", address),
            ("Cache-Control", "no-store"),
            ("Docker-Content-Digest", digest),
        ]
        return Response(307, headers, outcome=found.outcome)

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


def manifest_headers(pulled: PulledManifest, reference: Digest | str) -> Headers:
    headers: Headers = [
        ("Content-Type", pulled.media_type),
        ("Docker-Content-Digest", pulled.digest),
        ("ETag", f'"{pulled.digest}"'),
    ]
    headers.append(FOREVER if isinstance(reference, Digest) else ("Vary", "Accept"))
    if pulled.age is not None:
        headers.append(("Age", str(int(pulled.age))))
    headers += warning_of(pulled.failure)
    return headers


def names(if_none_match: str | None, digest: Digest) -> bool:
    """Whether an If-None-Match has the digest's ETag (RFC 9110, 13.1.2; weak comparison)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or f'"{digest}"' in tags


def warning_of(failure: UpstreamError | None) -> Headers:
    """Code 299 as clients show it: no agent, no date, one line of plain ASCII (clients drop long ones)."""
    if failure is None:
        return []
    text = f"served from the cache: {failure.upstream} failed ({failure})"
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
    return [("Warning", f'299 - "{plain[:500]}"')]


def _bytes_of(view: BlobView, request: Request, headers: Headers) -> tuple[int, Headers, BlobBody]:
    """Status, headers and body for what the request asks of the blob. Raises Unsatisfiable."""
    whole = Span(0, view.size, bounded=False)
    spans = _asked(request, view.digest, view.size)
    if spans is None:
        return 200, headers, BlobBody(view, (whole,) if view.size else (), view.size)
    if len(spans) == 1:
        headers = [*headers, ("Content-Range", content_range(spans[0], view.size))]
        return 206, headers, BlobBody(view, spans, spans[0].length)
    boundary = f"cacheproxy-{request.id}"
    parts, length = multipart(spans, view.size, "application/octet-stream", boundary)
    headers = [("Content-Type", f"multipart/byteranges; boundary={boundary}"), *headers[1:]]
    return 206, headers, BlobBody(view, parts, length)


def _asked(request: Request, digest: Digest, size: int) -> tuple[Span, ...] | None:
    """The spans that the request's Range names; None: all of it. Raises Unsatisfiable."""
    wanted = request.headers.get("range")
    condition = request.headers.get("if-range")
    if wanted is None or (condition is not None and condition.strip() != f'"{digest}"'):
        return None
    return parse_range(wanted, size)


async def _first_byte(body: BlobBody) -> None:
    """The status line waits for it: a 200 without a body is worse than a 502."""
    for part in body.parts:
        if isinstance(part, Span):
            await body.view.available(part.start, part)
            return


def _referrers_index(pulled: PulledList, artifact_type: str | None) -> bytes:
    listed: list[dict[str, Any]] = [
        item for item in pulled.items if artifact_type is None or item.get("artifactType") == artifact_type
    ]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})
