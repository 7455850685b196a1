"""The operations of the distribution API: path to record and back, one table for server and client.

A path that could be read in two ways (an encoded slash, "..", "//") is refused before it is routed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_digest, parse_reference, parse_requested
from cacheproxy.core.percent import decode


@dataclass(frozen=True, slots=True)
class Ping:
    """Does this host speak the API?"""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The names of all repositories."""


@dataclass(frozen=True, slots=True)
class Manifest:
    name: str
    reference: Digest | str


@dataclass(frozen=True, slots=True)
class Blob:
    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Uploads:
    """Where an upload of a blob begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that has begun."""

    name: str
    session: str


@dataclass(frozen=True, slots=True)
class Tags:
    name: str


@dataclass(frozen=True, slots=True)
class Referrers:
    name: str
    digest: Digest


Operation = Ping | Catalog | Manifest | Blob | Uploads | Upload | Tags | Referrers
"""`name` is as asked for: the first segment may be a host with a port. Routes.resolve says what it means."""


@dataclass(frozen=True, slots=True)
class Route:
    """/v2/<name>/<noun>/<last>"""

    noun: str
    make: Callable[[str, str], Operation]
    """Of name and last segment; raises OCIError where the latter is not well-formed."""
    last: Callable[[Any], str]


def _upload(name: str, last: str) -> Upload | Uploads:
    if not last:
        return Uploads(name)
    if _SESSION.fullmatch(last) is None:
        raise OCIError("BLOB_UPLOAD_UNKNOWN", "not the name of an upload; begin one by POST")
    return Upload(name, last)


def _tags(name: str, last: str) -> Tags:
    if last != "list":
        raise _no_such_operation()
    return Tags(name)


ROUTES: Mapping[type[Operation], Route] = {
    Manifest: Route(
        "manifests",
        make=lambda name, last: Manifest(name, parse_reference(last)),
        last=lambda operation: operation.reference,
    ),
    Blob: Route(
        "blobs",
        make=lambda name, last: Blob(name, parse_digest(last)),
        last=lambda operation: operation.digest,
    ),
    Uploads: Route("blobs/uploads", make=_upload, last=lambda _: ""),
    Upload: Route("blobs/uploads", make=_upload, last=lambda operation: operation.session),
    Tags: Route("tags", make=_tags, last=lambda _: "list"),
    Referrers: Route(
        "referrers",
        make=lambda name, last: Referrers(name, parse_digest(last)),
        last=lambda operation: operation.digest,
    ),
}
"""The operations on a repository."""

FIXED: Mapping[str, Operation] = {"/v2/_catalog": Catalog(), "/v2/": Ping(), "/v2": Ping()}
"""The others. Of two paths of one operation the first is canonical."""

_BY_NOUN = {route.noun: route for route in ROUTES.values()}
_SESSION = re.compile(r"[0-9a-f]{32}")
_ENCODED_TRAP = re.compile(r"%(?:2f|5c|00)", re.IGNORECASE)
_TRAP = re.compile(r"//|\\|/\.{1,2}(?:/|\Z)")


def parse(path: str) -> Operation:
    """The operation that a request's path (raw, without the query) names.

    "/<host or prefix>/v2/<rest>" is "/v2/<host or prefix>/<rest>": containerd puts the path of a mirror's
    address before "/v2". Raises OCIError: 400 for what is malformed, 404 for what is no operation.
    """
    path = _decode(path)
    if path in FIXED:
        return FIXED[path]
    lead, version, rest = f"{path}/".partition("/v2/")
    if not version:
        raise _no_such_operation()
    lead, rest = lead.removeprefix("/"), rest.removesuffix("/")
    if lead and not rest:
        return Ping()
    name, noun, last = ["", "", *rest.rsplit("/", 2)][-3:]
    if noun == "uploads":
        name, _, above = name.rpartition("/")
        noun = f"{above}/{noun}"
    if not name or not (last or noun == "blobs/uploads") or noun not in _BY_NOUN:
        raise _no_such_operation()
    return _BY_NOUN[noun].make(parse_requested(f"{lead}/{name}" if lead else name), last)


def _decode(path: str) -> str:
    if _ENCODED_TRAP.search(path):
        raise OCIError("NAME_INVALID", "the path holds an encoded slash, backslash or NUL")
    try:
        decoded = decode(path)
    except ValueError as error:
        raise OCIError("NAME_INVALID", f"the path is not well-formed: {error}") from None
    if not decoded.isascii() or not decoded.startswith("/") or _TRAP.search(decoded):
        raise OCIError("NAME_INVALID", f"the path is not one of segments of plain ASCII: {path[:100]!a}")
    return decoded


def _no_such_operation() -> OCIError:
    return OCIError("UNSUPPORTED", "not a path of the distribution API", status=404)


def path(operation: Operation) -> str:
    """The canonical path. Its characters need no encoding."""
    for fixed, known in FIXED.items():
        if known == operation:
            return fixed
    assert not isinstance(operation, Ping | Catalog)
    route = ROUTES[type(operation)]
    return f"/v2/{operation.name}/{route.noun}/{route.last(operation)}"
