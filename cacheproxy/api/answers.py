"""What answers have in common, whatever repository they are about: headers, and how a blob is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import UpstreamError
from cacheproxy.core.ranges import content_range, multipart, parse_range
from cacheproxy.edge.message import BlobBody, Network, Peer, Request, Response
from cacheproxy.registry.blobs import Located
from cacheproxy.registry.manifests import PulledManifest

JSON = "application/json"
FOREVER = ("Cache-Control", "max-age=31536000, immutable")
"""What a digest names never changes."""

Headers = list[tuple[str, str]]
Query = Mapping[str, Sequence[str]]


class BlobSource(Protocol):
    """One repository's blobs."""

    async def locate(self, digest: Digest) -> Located:
        """For HEAD: starts nothing."""
        ...

    async def open(self, digest: Digest) -> tuple[BlobView, str]:
        """A view of the blob, and the outcome."""
        ...

    async def address(self, digest: Digest, found: Located) -> str | None:
        """Where the client may fetch it itself; None: nowhere."""
        ...


class BlobAnswers:
    """GET and HEAD of blobs. Raises what the source raises, and OCIError 416."""

    def __init__(self, redirect: Sequence[Network] = ()) -> None:
        """Clients in these networks are sent to the store for what it has, if it does that."""
        self._redirect = redirect

    async def answer(self, source: BlobSource, digest: Digest, request: Request) -> Response:
        headers: Headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", digest),
            ("ETag", f'"{digest}"'),
            ("Accept-Ranges", "bytes"),
            FOREVER,
        ]
        if request.method == "HEAD" or names(request.headers.get("if-none-match"), digest):
            found = await source.locate(digest)
            status = 200 if request.method == "HEAD" else 304
            length = found.size if request.method == "HEAD" else None
            return Response(status, headers, length=length, outcome=found.outcome)
        if self.redirects(request.peer, request.headers):
            elsewhere = await _elsewhere(source, digest, request)
            if elsewhere is not None:
                return elsewhere
        view, outcome = await source.open(digest)
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


async def _elsewhere(source: BlobSource, digest: Digest, request: Request) -> Response | None:
    """A redirect to the store; None where it would not do: several ranges, or nothing stored."""
    found = await source.locate(digest)
    spans = _asked(request, digest, found.size)
    if spans is not None and len(spans) > 1:
        return None
    address = await source.address(digest, found)
    if address is None:
        return None
    headers: Headers = [
        ("Location", address),
        ("Cache-Control", "no-store"),
        ("Docker-Content-Digest", digest),
    ]
    return Response(307, headers, outcome=found.outcome)


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
