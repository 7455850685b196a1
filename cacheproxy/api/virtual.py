"""Reading what a virtual name stands for: its places in order, the first that has it.

A name is a hosted repository's as soon as there is one of that name in any place: then no upstream is asked
what its tags mean, and nobody elsewhere can put an image under it. What a digest names is the same wherever
it is, and is looked for in all places. Only "there is none" moves on; any other failure ends it, or a place
that is down would let another's image take its own's place.

The caller needs the right to read the virtual name, and each place that is looked at, there or not: where it
lacks one it learns nothing, and nothing is looked for behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cacheproxy.api.admission import Admission
from cacheproxy.api.answers import JSON, Headers, Query, warning_of
from cacheproxy.api.caller import Caller
from cacheproxy.api.distribution import Distribution
from cacheproxy.api.hosting import REFERRERS, Hosted
from cacheproxy.core import operations as ops
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.listing import link
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.query import MAX_PAGE, first, parse_n
from cacheproxy.core.rights import Right
from cacheproxy.core.routing import Target, Virtual
from cacheproxy.edge.message import Request, Response
from cacheproxy.registry.manifests import PulledManifest

Place = str | Target
"""A hosted repository, or an upstream's."""


class Virtuals:
    """Raises OCIError and UpstreamError."""

    def __init__(
        self,
        distribution: Distribution,
        hosted: Hosted | None,
        callers: Admission,
        hides: Mapping[str, frozenset[int]],
    ) -> None:
        """`hides`: by upstream, the statuses that say no more than "there is none"."""
        self._distribution = distribution
        self._hosted = hosted
        self._callers = callers
        self._hides = hides
        self._handlers: dict[type, Callable[..., Awaitable[Response]]] = {
            ops.Blob: self._blob,
            ops.Tags: self._tags,
            ops.Referrers: self._referrers,
        }

    async def manifest(
        self, operation: ops.Manifest, virtual: Virtual, request: Request, caller: Caller
    ) -> tuple[PulledManifest, str]:
        """And the upstream that has it; "": it is hosted."""
        named = not isinstance(operation.reference, Digest)
        for place in await self._places(virtual, request, caller, named=named):
            self._admit(virtual, place, request, caller)
            try:
                if isinstance(place, Target):
                    return await self._distribution.manifest(operation, place), place.upstream
                assert self._hosted is not None
                return await self._hosted.manifest(operation, place), ""
            except (OCIError, UpstreamError) as error:
                self._moves_on(error)
        said = f"{virtual.name} has no image {operation.reference} in any of its places"
        raise OCIError("MANIFEST_UNKNOWN", said)

    async def answer(
        self, operation: ops.Operation, virtual: Virtual, request: Request, query: Query, caller: Caller
    ) -> Response:
        """Reading anything but a manifest."""
        return await self._handlers[type(operation)](operation, virtual, request, query, caller)

    async def _blob(
        self, operation: ops.Blob, virtual: Virtual, request: Request, query: Query, caller: Caller
    ) -> Response:
        """From the place whose image names it, if one is here: that is the one that served the manifest."""
        places = await self._places(virtual, request, caller, named=False)
        named = [place for place in places if await self._named_by(place, operation.digest)]
        for place in (*named, *(place for place in places if place not in named)):
            self._admit(virtual, place, request, caller)
            try:
                return await self._blob_of(place, operation, request, query, caller)
            except (OCIError, UpstreamError) as error:
                self._moves_on(error)
        raise OCIError("BLOB_UNKNOWN", f"{virtual.name} has no blob {operation.digest} in any of its places")

    async def _named_by(self, place: Place, digest: Digest) -> bool:
        return isinstance(place, str) or await self._distribution.names(place, digest)

    async def _blob_of(
        self, place: Place, operation: ops.Blob, request: Request, query: Query, caller: Caller
    ) -> Response:
        if isinstance(place, Target):
            response = await self._distribution.answer(operation, place, request, query)
            response.upstream = place.upstream
            return response
        assert self._hosted is not None
        return await self._hosted.answer(operation, "GET", place, request, query, caller)

    async def _tags(
        self, operation: ops.Tags, virtual: Virtual, request: Request, query: Query, caller: Caller
    ) -> Response:
        n, last = _page(query, MAX_PAGE)
        union: set[str] = set()
        headers: Headers = [("Content-Type", JSON)]
        lists = 0
        for place in await self._places(virtual, request, caller, named=True):
            self._admit(virtual, place, request, caller)
            try:
                found, warnings = await self._tags_of(place, last, n + 1)
            except (OCIError, UpstreamError) as error:
                self._moves_on(error)
                continue
            lists += 1
            union.update(found)
            headers += warnings
        if not lists:
            raise OCIError("NAME_UNKNOWN", f"there is no repository {virtual.name} in any of its places")
        tags = sorted(union)
        if n and len(tags) > n:
            keep = {"ns": query["ns"][0]} if "ns" in query else {}
            headers.append(("Link", link(request.path, n, tags[n - 1], keep)))
        return Response(200, headers, msgspec.json.encode({"name": operation.name, "tags": tags[:n]}))

    async def _tags_of(self, place: Place, last: str, n: int) -> tuple[Sequence[str], Headers]:
        """Up to `n` behind `last`, in order."""
        if isinstance(place, Target):
            pulled = await self._distribution.tags_of(place)
            return [tag for tag in pulled.items if tag > last][:n], warning_of(pulled.failure)
        assert self._hosted is not None
        return await self._hosted.tags_of(place, last, n), []

    async def _referrers(
        self, operation: ops.Referrers, virtual: Virtual, request: Request, query: Query, caller: Caller
    ) -> Response:
        wanted, (n, last) = first(query, "artifactType"), _page(query, REFERRERS)
        union: dict[str, Any] = {}
        headers: Headers = [("Content-Type", OCI_INDEX)]
        for place in await self._places(virtual, request, caller, named=False):
            self._admit(virtual, place, request, caller)
            try:
                found, warnings = await self._referrers_of(place, operation.digest, wanted, last, n + 1)
            except (OCIError, UpstreamError) as error:
                self._moves_on(error)
                continue
            headers += warnings
            for item in found:
                union.setdefault(str(item["digest"]), item)
        listed = [union[digest] for digest in sorted(union)]
        keep = {} if wanted is None else {"artifactType": wanted}
        if wanted is not None:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        if n and len(listed) > n:
            headers.append(("Link", link(request.path, n, listed[n - 1]["digest"], keep)))
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed[:n]}
        return Response(200, headers, msgspec.json.encode(body))

    async def _referrers_of(
        self, place: Place, subject: Digest, artifact_type: str | None, last: str, n: int
    ) -> tuple[Iterable[Any], Headers]:
        if isinstance(place, str):
            assert self._hosted is not None
            return await self._hosted.referrers_of(place, subject, artifact_type, last, n), []
        pulled = await self._distribution.referrers_of(place, subject)
        found = [item for item in pulled.items if artifact_type in (None, item.get("artifactType"))]
        behind = [item for item in found if item["digest"] > last]
        return sorted(behind, key=lambda item: str(item["digest"]))[:n], warning_of(pulled.failure)

    async def _places(
        self, virtual: Virtual, request: Request, caller: Caller, *, named: bool
    ) -> Sequence[Place]:
        """Where it is looked for; `named`: what a tag means, or which there are."""
        ours: list[Place] = []
        for name in virtual.hosted:
            self._admit(virtual, name, request, caller)
            if self._hosted is not None and await self._hosted.has(name):
                ours.append(name)
        return ours if ours and named else [*ours, *virtual.cached]

    def _admit(self, virtual: Virtual, place: Place, request: Request, caller: Caller) -> None:
        repository = place.repository if isinstance(place, Target) else place
        if not self._callers.admits(request, caller, Right.PULL, repository):
            raise self._callers.refusal(request, caller, Right.PULL, virtual.name)

    def _moves_on(self, error: OCIError | UpstreamError) -> None:
        """Raises it unless it says that there is none."""
        if isinstance(error, OCIError):
            absent = error.status == 404
        elif error.cause is Cause.AUTH:
            absent = error.status in self._hides.get(error.upstream, ())
        else:
            absent = error.cause is Cause.MISSING
        if not absent:
            raise error


def _page(query: Query, most: int) -> tuple[int, str]:
    n = parse_n(query.get("n", ()))
    return most if n is None else min(n, most), first(query, "last") or ""
