"""OCI image layouts: what is where in one, and whose images it holds (image-spec, "OCI Image Layout").

An export of ours names each of its images whole, "team/app:1", by the annotation that the specification has
for it. Others write only a tag there, or say the name in containerd's annotation, or nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.image import DEFAULT_TAG, parse_image
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.name import is_tag

MARKER = "oci-layout"
INDEX = "index.json"
VERSION = "1.0.0"
MAX_INDEX = 16 << 20
"""Bytes: some 40 000 images with their names."""

REF_NAME = "org.opencontainers.image.ref.name"
WHOLE_NAME = "io.containerd.image.name"
SINCE = "cacheproxy.export.since"
"""Of an index: the digest of the index of the export that has the blobs which are left out here."""
SINCE_NAME = "cacheproxy.export.since.name"
"""The file's name then, for people."""
ABSENT = "cacheproxy.export.absent"
"""Of an index: manifests that its images name, and that were not there, with blanks between."""

_BLOB = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")


class LayoutInvalid(ValueError):
    """It is no image layout, or none that can be believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Root:
    """An image or an index that a layout names."""

    digest: Digest
    media_type: str
    size: int
    repository: str = ""
    """"": it is not said."""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """index.json."""

    roots: tuple[Root, ...]
    since: str = ""
    since_name: str = ""
    absent: frozenset[Digest] = frozenset()


def blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def digest_at(path: str) -> Digest | None:
    """None: no blob is there."""
    match = _BLOB.fullmatch(path)
    try:
        return None if match is None else Digest.parse(f"{match[1]}:{match[2]}")
    except InvalidDigest:
        return None


class _Marker(msgspec.Struct):
    version: str = msgspec.field(name="imageLayoutVersion")


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct):
    manifests: list[_Descriptor]
    annotations: dict[str, str] | None = None


def marker() -> bytes:
    return msgspec.json.encode({"imageLayoutVersion": VERSION})


def check_marker(data: bytes) -> None:
    """Raises LayoutInvalid."""
    version = _decoded(data, _Marker, MARKER).version
    if version != VERSION:
        raise LayoutInvalid(f"its {MARKER} says version {version[:20]!a}, and only {VERSION} is known")


def index(found: Index) -> bytes:
    """The bytes of index.json. The same images give the same bytes."""
    said = {
        SINCE: found.since,
        SINCE_NAME: found.since_name,
        ABSENT: " ".join(sorted(found.absent)),
    }
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_descriptor(root) for root in found.roots],
    }
    annotations = {key: value for key, value in said.items() if value}
    return msgspec.json.encode({**document, "annotations": annotations} if annotations else document)


def parse_index(data: bytes) -> Index:
    """Raises LayoutInvalid."""
    wire = _decoded(data, _Index, INDEX)
    said = wire.annotations or {}
    try:
        roots = tuple(_root(descriptor) for descriptor in wire.manifests)
        absent = frozenset(map(Digest.parse, said.get(ABSENT, "").split()))
    except InvalidDigest as error:
        raise LayoutInvalid(f"{INDEX}: {error}") from None
    return Index(roots, said.get(SINCE, ""), said.get(SINCE_NAME, ""), absent)


def named(annotations: Mapping[str, str]) -> tuple[str, str]:
    """Repository and tag that a descriptor's annotations name; "" for what they do not say.

    Raises LayoutInvalid for a name that is none.
    """
    text = annotations.get(WHOLE_NAME) or annotations.get(REF_NAME) or ""
    if not text or is_tag(text):
        return "", text
    try:
        image = parse_image(text)
    except OCIError as error:
        raise LayoutInvalid(f"an image is called {text[:300]!a}: {error.message}") from None
    return image.name, "" if isinstance(image.reference, Digest) else image.reference or DEFAULT_TAG


def placed(root: Root, to: str) -> str:
    """The repository that an image goes into; `to` as people give it ("": nowhere else than it says).

    Below `to` the registry that it was in is left out. Raises LayoutInvalid where nobody says a name.
    """
    if not to and not root.repository:
        said = root.tag or root.digest
        raise LayoutInvalid(f"the image {said} is not said to be of any repository: name one by --to")
    if not to or not root.repository:
        return to or root.repository
    first, slash, rest = root.repository.partition("/")
    elsewhere = slash and (first == "localhost" or "." in first or ":" in first)
    return f"{to}/{rest if elsewhere else root.repository}"


def _decoded(data: bytes, kind: type[Any], name: str) -> Any:
    if len(data) > MAX_INDEX:
        raise LayoutInvalid(f"its {name} is larger than {MAX_INDEX} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LayoutInvalid(f"its {name} is not what it should be: {error}") from None


def _root(wire: _Descriptor) -> Root:
    if wire.size < 0:
        raise LayoutInvalid(f"{INDEX}: the size of {wire.digest[:100]!a} is not a size")
    repository, tag = named(wire.annotations or {})
    return Root(Digest.parse(wire.digest), wire.media_type, wire.size, repository, tag)


def _descriptor(root: Root) -> dict[str, Any]:
    name = f"{root.repository}:{root.tag}" if root.tag else f"{root.repository}@{root.digest}"
    return {
        "mediaType": root.media_type,
        "digest": str(root.digest),
        "size": root.size,
        "annotations": {REF_NAME: name},
    }
