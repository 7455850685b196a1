"""The distribution API over hosted repositories: manifests, blobs and lists (distribution-spec).

`repository` is canonical; `operation.name` is what the client calls it, and what addresses in answers say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from cacheproxy.api.answers import JSON, BlobAnswers, Headers, Query
from cacheproxy.api.caller import Caller
from cacheproxy.api.uploads import Uploads
from cacheproxy.core import operations as ops
from cacheproxy.core.blob import BlobView
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.listing import link
from cacheproxy.core.manifest import MAX_MANIFEST
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.name import parse_tag
from cacheproxy.core.operations import path
from cacheproxy.core.query import MAX_PAGE, first, parse_n
from cacheproxy.core.rights import Right
from cacheproxy.edge.message import Request, Response
from cacheproxy.registry.blobs import Located
from cacheproxy.registry.hosting import Hosting
from cacheproxy.registry.manifests import PulledManifest
from cacheproxy.registry.repositories import Repositories

MOST_TAGS = 10
"""In one PUT (distribution-spec, "Pushing Manifests": at least that many)."""

REFERRERS = 500
"""In one answer: with their annotations they stay well below the 4 MiB that clients read of one."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The blobs of one hosted repository (answers.BlobSource)."""

    hosting: Hosting
    repository: str

    async def locate(self, digest: Digest) -> Located:
        return await self.hosting.locate(self.repository, digest)

    async def open(self, digest: Digest) -> tuple[BlobView, str]:
        return await self.hosting.open(self.repository, digest)

    async def address(self, digest: Digest, found: Located) -> str | None:
        return await self.hosting.address(digest, found)


class Hosted:
    """Raises OCIError."""

    def __init__(
        self, hosting: Hosting, repositories: Repositories, blobs: BlobAnswers, uploads: Uploads
    ) -> None:
        self._hosting = hosting
        self._repositories = repositories
        self._blobs = blobs
        self._uploads = uploads
        self._handlers: dict[tuple[type, str], Callable[..., Awaitable[Response]]] = {
            (ops.Manifest, "PUT"): self._put,
            (ops.Manifest, "DELETE"): self._delete,
            (ops.Blob, "GET"): self._blob,
            (ops.Blob, "DELETE"): uploads.delete,
            (ops.Uploads, "POST"): self._begin,
            (ops.Upload, "GET"): uploads.status,
            (ops.Upload, "PATCH"): uploads.append,
            (ops.Upload, "PUT"): uploads.finish,
            (ops.Upload, "DELETE"): uploads.cancel,
            (ops.Tags, "GET"): self._tags,
            (ops.Referrers, "GET"): self._referrers,
        }

    async def has(self, name: str) -> bool:
        """Whether a repository of that name is hosted here."""
        return await self._repositories.is_hosted(name)

    def covers(self, name: str) -> bool:
        """Whether the name is below the prefix of a template: no other registry's, there or not."""
        return self._repositories.covers(name)

    def creatable(self, name: str, caller: Caller) -> bool:
        """Whether the caller's push would make the repository."""
        return caller.may(Right.CREATE, name) and self._repositories.foresees(name)

    def foreseen(self, name: str, caller: Caller) -> str:
        """The repository that somebody pushes to, and that is not there: their push may make it."""
        if self.creatable(name, caller):
            return name
        raise OCIError(
            "NAME_UNKNOWN",
            f"there is no repository {name} here, and a push does not make one: that takes a [[template]]"
            f" that covers it, and the right to create for {caller.name}",
            detail={"name": name},
        )

    async def answer(
        self,
        operation: ops.Operation,
        method: str,
        repository: str,
        request: Request,
        query: Query,
        caller: Caller,
    ) -> Response:
        """Any operation on a hosted repository but GET of a manifest. `method`: GET is HEAD, too."""
        return await self._handlers[type(operation), method](operation, repository, request, query, caller)

    async def manifest(self, operation: ops.Manifest, repository: str) -> PulledManifest:
        """GET and HEAD."""
        return await self._hosting.manifest(repository, operation.reference)

    async def _begin(
        self, operation: ops.Uploads, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """An upload begins; a repository that it made is not there if it did not."""
        if await self.has(repository):
            return await self._uploads.begin(operation, repository, request, query, caller)
        self.foreseen(repository, caller)
        await self._repositories.born_by_push(repository)
        try:
            return await self._uploads.begin(operation, repository, request, query, caller)
        except BaseException:
            await self._repositories.unmake(repository)
            raise

    async def tags_of(self, repository: str, last: str, n: int) -> list[str]:
        """Up to `n` behind `last`."""
        return await self._hosting.tags(repository, last, n)

    async def referrers_of(
        self, repository: str, subject: Digest, artifact_type: str | None, last: str, n: int
    ) -> list[dict[str, Any]]:
        """Up to `n` descriptors behind `last`, in the order of their digests."""
        return await self._hosting.referrers(repository, subject, artifact_type, last, n)

    async def _put(
        self, operation: ops.Manifest, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        tags = [parse_tag(tag) for tag in query.get("tag", ())]
        if len(tags) > MOST_TAGS:
            raise OCIError("TAG_INVALID", f"more than {MOST_TAGS} tags in one request", status=414)
        body = await request.read_body(MAX_MANIFEST)
        sent_as = request.headers.get("content-type", "")
        birth = self._repositories.birth(repository) if caller.may(Right.CREATE, repository) else None
        digest, parsed = await self._hosting.put(repository, operation.reference, tags, sent_as, body, birth)
        headers: Headers = [
            ("Location", path(ops.Manifest(operation.name, digest))),
            ("Docker-Content-Digest", digest),
        ]
        headers += [("OCI-Tag", tag) for tag in tags]
        if parsed.subject is not None:
            headers.append(("OCI-Subject", parsed.subject.digest))
        return Response(201, headers)

    async def _delete(
        self, operation: ops.Manifest, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        await self._hosting.delete(repository, operation.reference)
        return Response(202)

    async def _blob(
        self, operation: ops.Blob, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        return await self._blobs.answer(_Kept(self._hosting, repository), operation.digest, request)

    async def _tags(
        self, operation: ops.Tags, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        n, last = _page(query)
        found = await self._hosting.tags(repository, last, n + 1)
        headers: Headers = [("Content-Type", JSON)]
        if n and len(found) > n:
            headers.append(("Link", link(request.path, n, found[n - 1])))
        body = msgspec.json.encode({"name": operation.name, "tags": found[:n]})
        return Response(200, headers, body)

    async def catalog(self, request: Request, query: Query, caller: Caller) -> Response:
        """The repositories that the caller may see."""
        n, last = _page(query)
        found, more = await self._hosting.names(last, n, lambda name: caller.may(Right.LIST, name))
        headers: Headers = [("Content-Type", JSON)]
        if n and more:
            headers.append(("Link", link(request.path, n, found[-1])))
        return Response(200, headers, msgspec.json.encode({"repositories": found}))

    async def _referrers(
        self, operation: ops.Referrers, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        wanted, (n, last) = first(query, "artifactType"), _page(query)
        n = min(n, REFERRERS) or REFERRERS
        found = await self._hosting.referrers(repository, operation.digest, wanted, last, n + 1)
        headers: Headers = [("Content-Type", OCI_INDEX)]
        keep = {} if wanted is None else {"artifactType": wanted}
        if wanted is not None:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        if len(found) > n:
            headers.append(("Link", link(request.path, n, found[n - 1]["digest"], keep)))
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[:n]}
        return Response(200, headers, msgspec.json.encode(body))


def _page(query: Query) -> tuple[int, str]:
    n = parse_n(query.get("n", ()))
    return MAX_PAGE if n is None else n, first(query, "last") or ""
