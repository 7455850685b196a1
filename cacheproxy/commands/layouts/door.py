"""The distribution API of the running daemon, at its admin socket: whoever may open that may do all."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

from cacheproxy.commands.daemon import Daemon, NoDaemon, Refused
from cacheproxy.core import operations as ops
from cacheproxy.core.digest import Digest
from cacheproxy.core.listing import next_link
from cacheproxy.core.manifest import MAX_MANIFEST
from cacheproxy.core.media import ACCEPT

STEP = 1 << 20
TRIES = 3
"""Times in a row that a blob may break off without another byte."""
PAGE = 1000
ANSWER_WITHIN = 3600.0
"""Seconds: the last byte of a large blob is answered once a bucket has taken it."""

_BROKEN = (OSError, http.client.HTTPException)


class Gone(Exception):
    """There is no such blob (any more)."""


class Pulled(NamedTuple):
    digest: Digest
    media_type: str
    body: bytes


class Meaning(NamedTuple):
    """Of a name that a person wrote."""

    pulled: str | None
    """The repository that is pulled from by it; None: there is none."""
    pushed: str | None
    """The one that is pushed into by it; None: the name is an upstream's."""


class Door:
    """Raises NoDaemon; and Refused for what the daemon does not do, with its reason."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def meaning(self, name: str) -> Meaning:
        return Meaning(**self._daemon.get("/meaning", name=name))

    def manifest(self, repository: str, reference: Digest | str) -> Pulled | None:
        """None: there is none."""
        path = ops.path(ops.Manifest(repository, reference))
        with self._asking("GET", path, {"Accept": ACCEPT}) as answer:
            if answer.status == 404:
                return None
            body = _checked(answer, path).read(MAX_MANIFEST + 1)
            return Pulled(
                Digest.parse(answer.headers.get("Docker-Content-Digest", "")),
                answer.headers.get("Content-Type", ""),
                body,
            )

    def means(self, repository: str, reference: Digest | str) -> str | None:
        """The digest of an image that is there."""
        path = ops.path(ops.Manifest(repository, reference))
        with self._asking("HEAD", path, {"Accept": ACCEPT}) as answer:
            if answer.status == 404:
                return None
            return _checked(answer, path).headers.get("Docker-Content-Digest")

    def has(self, repository: str, digest: Digest) -> bool:
        """Whether a blob is there."""
        path = ops.path(ops.Blob(repository, digest))
        with self._asking("HEAD", path) as answer:
            return answer.status != 404 and _checked(answer, path).status == 200

    def blob(self, repository: str, digest: Digest, size: int) -> Iterator[bytes]:
        """Its bytes, which nobody has proven. What breaks off is taken up again where it was. Raises Gone."""
        path, offset, tries = ops.path(ops.Blob(repository, digest)), 0, 0
        while not tries or offset < size:
            if tries == TRIES:
                raise NoDaemon(
                    f"{path} breaks off after {offset} of {size} bytes; the daemon's log has the reason"
                )
            tries += 1
            with suppress(*_BROKEN):
                for chunk in self._part(path, offset, size):
                    offset, tries = offset + len(chunk), 1
                    yield chunk

    def _part(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._asking("GET", path, headers) as answer:
            if answer.status == 404:
                raise Gone(path)
            _checked(answer, path)
            if answer.length != size - offset:
                raise Refused(
                    f"{path} has {answer.length} bytes behind the first {offset}, and not {size} in all"
                )
            while chunk := answer.read(STEP):
                yield chunk

    def mount(self, repository: str, digest: Digest) -> bool:
        """Whether the repository has the blob now: some other one had it."""
        query = urlencode({"mount": digest})
        path = ops.path(ops.Uploads(repository))
        with self._asking("POST", f"{path}?{query}", {"Content-Length": "0"}) as answer:
            mounted = _checked(answer, path).status == 201
            session = answer.headers.get("Location", "")
        if not mounted:
            with self._asking("DELETE", session) as answer:
                answer.read()
        return mounted

    def push(self, repository: str, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        query = urlencode({"digest": digest, "digest-algorithm": digest.algorithm})
        path = ops.path(ops.Uploads(repository))
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._asking("POST", f"{path}?{query}", headers, chunks) as answer:
            _checked(answer, path)

    def put(self, repository: str, reference: Digest | str, body: bytes, media_type: str) -> None:
        path = ops.path(ops.Manifest(repository, reference))
        with self._asking("PUT", path, {"Content-Type": media_type}, body) as answer:
            _checked(answer, path)

    def referrers(self, repository: str, subject: Digest) -> Iterator[Digest]:
        for page in self._pages(ops.path(ops.Referrers(repository, subject)), {}):
            for descriptor in page["manifests"] or ():
                yield Digest.parse(descriptor["digest"])

    def tags(self, repository: str, prefix: str) -> Iterator[str]:
        """Those that begin so."""
        query = {"n": str(PAGE), "last": prefix}
        for page in self._pages(ops.path(ops.Tags(repository)), query):
            for tag in page["tags"] or ():
                if not tag.startswith(prefix):
                    return
                yield tag

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """Of what is not there, none."""
        target = f"{path}?{urlencode(query)}" if query else path
        while target:
            with self._asking("GET", target) as answer:
                if answer.status == 404:
                    return
                page = json.loads(_checked(answer, path).read())
                target = next_link(answer.headers.get("Link", "")) or ""
            yield page

    @contextmanager
    def _asking(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        with self._daemon.connection(ANSWER_WITHIN) as connection:
            try:
                # Who refuses what is being sent does not wait for its end.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body, dict(headers or {}))
                answer = connection.getresponse()
            except _BROKEN as error:
                raise NoDaemon(f"the daemon broke off at {target}: {error!r}") from error
            yield answer


def _checked(answer: http.client.HTTPResponse, path: str) -> http.client.HTTPResponse:
    """Raises Refused."""
    if answer.status < 400:
        return answer
    told = answer.read()
    try:
        error = json.loads(told)["errors"][0]
        said = f"{error['code']}: {error['message']}"
    except (ValueError, LookupError, TypeError):
        said = f"status {answer.status}"  # to HEAD there is no more
    raise Refused(f"{path}: {said}")
