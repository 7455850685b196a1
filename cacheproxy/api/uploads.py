"""The pushing side of blobs (distribution-spec, "Pushing blobs"): one handler an operation and method.

Addresses in answers are paths: they go back to wherever the request came in, whatever stands before us.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from cacheproxy.api.caller import Caller
from cacheproxy.core import operations as ops
from cacheproxy.core.digest import ALGORITHMS, Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_digest
from cacheproxy.core.operations import path
from cacheproxy.core.query import first
from cacheproxy.core.rights import Right
from cacheproxy.edge.message import Request, Response
from cacheproxy.registry.push import Push
from cacheproxy.registry.refusals import OutOfOrder

Query = Mapping[str, Sequence[str]]
Canonical = Callable[[str, Request], str | None]
"""The hosted or cached repository that a name in a request means; None: no such thing can be here."""

_RANGE = re.compile(r"(?:bytes[= ])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")
"""The specification writes "start-end"; some clients write it as HTTP does."""


class Uploads:
    """`repository` is canonical, and hosted; `operation.name` is what the client calls it. Raise OCIError."""

    def __init__(self, push: Push, canonical: Canonical) -> None:
        self._push = push
        self._canonical = canonical

    async def begin(
        self, operation: ops.Uploads, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """POST: by mount where that can be, whole where the digest is said, else a session."""
        wanted = first(query, "mount")
        if wanted is not None and await self._mounted(
            parse_digest(wanted), repository, request, query, caller
        ):
            return _created(operation.name, parse_digest(wanted))
        algorithm, told = _algorithm(first(query, "digest-algorithm")), first(query, "digest")
        if told is None:
            session = await self._push.begin(repository, caller.name, algorithm)
            return _begun(operation.name, session, 0)
        digest = parse_digest(told)
        await self._push.whole(repository, caller.name, algorithm, digest, request.receive)
        return _created(operation.name, digest)

    async def status(
        self, operation: ops.Upload, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """GET: how far it is."""
        received = await self._push.status(operation.session, repository, caller.name)
        return Response(204, _progress(operation.name, operation.session, received))

    async def append(
        self, operation: ops.Upload, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """PATCH: some more bytes."""
        span = _span(request)
        try:
            received = await self._push.append(
                operation.session, repository, caller.name, request.receive, span
            )
        except OutOfOrder as error:
            raise _told(error, operation) from error
        return _begun(operation.name, operation.session, received)

    async def finish(
        self, operation: ops.Upload, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """PUT: the last bytes, if any, and the digest of all."""
        told = first(query, "digest")
        if told is None:
            raise OCIError("DIGEST_INVALID", "an upload ends with ?digest=: say what was sent")
        digest, span = parse_digest(told), _span(request)
        try:
            await self._push.finish(operation.session, repository, caller.name, digest, request.receive, span)
        except OutOfOrder as error:
            raise _told(error, operation) from error
        return _created(operation.name, digest)

    async def cancel(
        self, operation: ops.Upload, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """DELETE."""
        await self._push.cancel(operation.session, repository, caller.name)
        return Response(204)

    async def delete(
        self, operation: ops.Blob, repository: str, request: Request, query: Query, caller: Caller
    ) -> Response:
        """DELETE of a blob that no image in the repository consists of."""
        await self._push.delete(repository, operation.digest)
        return Response(202)

    async def _mounted(
        self, digest: Digest, repository: str, request: Request, query: Query, caller: Caller
    ) -> bool:
        """A repository that the caller may not read is as one that has not got it."""
        told = first(query, "from")
        if told is None:
            return await self._push.mount_from_any(
                repository,
                digest,
                # Where our own rights do not count, no name is what it seems to be.
                lambda name: self._canonical(name, request) == name and caller.may(Right.PULL, name),
            )
        source = self._canonical(told, request)
        if source is None or not caller.may(Right.PULL, source):
            return False
        return await self._push.mount(repository, digest, source)


def _algorithm(told: str | None) -> str:
    if told is None:
        return "sha256"
    if told not in ALGORITHMS:
        raise OCIError("DIGEST_INVALID", f"digest-algorithm is one of {', '.join(ALGORITHMS)}")
    return told


def _span(request: Request) -> tuple[int, int] | None:
    """Where the body's bytes belong, half-open; None: behind what was received."""
    told = request.headers.get("content-range")
    if told is None:
        return None
    match = _RANGE.fullmatch(told.strip())
    start, stop = (int(match[1]), int(match[2]) + 1) if match is not None else (0, 0)
    if start >= stop:
        raise OCIError("BLOB_UPLOAD_INVALID", "Content-Range is not <first byte>-<last byte>", status=400)
    if request.declared is not None and request.declared != stop - start:
        raise OCIError("SIZE_INVALID", "Content-Range and Content-Length name different numbers of bytes")
    return start, stop


def _progress(name: str, session: str, received: int) -> list[tuple[str, str]]:
    return [
        ("Location", path(ops.Upload(name, session))),
        ("Range", f"0-{max(received - 1, 0)}"),
        ("Docker-Upload-UUID", session),
    ]


def _begun(name: str, session: str, received: int) -> Response:
    return Response(202, _progress(name, session, received))


def _created(name: str, digest: Digest) -> Response:
    return Response(201, [("Location", path(ops.Blob(name, digest))), ("Docker-Content-Digest", digest)])


def _told(error: OutOfOrder, operation: ops.Upload) -> OCIError:
    headers = tuple(_progress(operation.name, operation.session, error.received))
    return OCIError(error.code, error.message, headers=headers)
