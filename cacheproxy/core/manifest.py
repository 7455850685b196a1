"""Manifests and indexes: read once, strictly, into values. The bytes themselves are kept and served verbatim.

What two readers could understand differently is refused: duplicate keys, keys that differ from a known one
only in case (Go's decoder takes them for it), lone surrogates, NaN, a document that is both an image and an
index, a Content-Type that contradicts the body (CVE-2021-41190). So is what costs more to read than any image
needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from cacheproxy.core import media
from cacheproxy.core.digest import Digest

MAX_MANIFEST = 4 << 20
"""Bytes (distribution-spec, "Pushing Manifests": at least 4 MiB must be accepted; peers accept no more)."""

MAX_TOKENS = 1 << 16
"""Brackets, commas and colons: a thousand descriptors with a dozen annotations each."""

MAX_DEPTH = 64
MAX_DESCRIPTORS = 1000
"""Layers of an image, or manifests of an index."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Linear whatever it is given: possessive, and an unterminated string is taken to the end of the body."""
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NESTING = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_SIZE_BITS = 63

_GENERIC_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
"""Content-Types that say nothing: what static file servers and careless registries send."""


class ManifestInvalid(ValueError):
    """The body is not a manifest that this registry reads; the text says why."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """image-spec, "Content Descriptors"."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str]
    artifact_type: str | None = None
    platform: Mapping[str, Any] | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    media_type: str
    artifact_type: str | None
    """As a referrers list shows it: for an image without one, its config's media type (distribution-spec)."""
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    """Of an artifact manifest: its blobs."""
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    annotations: Mapping[str, str]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers."""
        return self.layers if self.config is None else (self.config, *self.layers)


def foreign(layer: Descriptor) -> bool:
    """Whether the layer need not be in the registry that has its image."""
    return bool(layer.urls) or any(word in layer.media_type for word in ("nondistributable", "foreign"))


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: Digest
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None
    platform: dict[str, Any] | None = None
    urls: list[str] | None = None


class _Manifest(msgspec.Struct, rename="camel"):
    """The union of all kinds: which fields may be there together is checked by `_check_shape`."""

    schema_version: int | None = None
    media_type: str | None = None
    artifact_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    blobs: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None


_KEYS = frozenset(field.encode_name for field in msgspec.structs.fields(_Manifest)) | {"fsLayers"}
_FOLDED = {key.lower(): key for key in _KEYS}

_FOREIGN: Mapping[media.Kind, frozenset[str]] = {
    "image": frozenset({"manifests", "blobs", "fsLayers"}),
    "index": frozenset({"config", "layers", "blobs", "fsLayers"}),
    "artifact": frozenset({"config", "layers", "manifests", "fsLayers"}),
}
"""Keys that make a document of this kind ambiguous."""

_REQUIRED: Mapping[media.Kind, str] = {"image": "config", "index": "manifests"}


def parse(body: bytes, media_type: str | None = None) -> ParsedManifest:
    """Read a manifest that came with this Content-Type (None: with none). Raises ManifestInvalid."""
    document = _decode(body)
    try:
        wire = msgspec.convert(document, _Manifest, dec_hook=_digest)
    except msgspec.ValidationError as error:
        raise ManifestInvalid(str(error)) from None
    type_ = _media_type(media_type, wire, document)
    kind = media.KINDS[type_]
    _check_shape(kind, wire, document)
    config = _descriptor(wire.config) if wire.config else None
    return ParsedManifest(
        media_type=type_,
        artifact_type=wire.artifact_type or (config.media_type if config else None),
        config=config,
        layers=_descriptors(wire.blobs if kind == "artifact" else wire.layers),
        manifests=_descriptors(wire.manifests),
        subject=_descriptor(wire.subject) if wire.subject else None,
        annotations=wire.annotations or {},
    )


def _decode(body: bytes) -> dict[str, Any]:
    """The document as plain values, once it is known to be cheap to build and to mean one thing only."""
    members = _scan(body)
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ManifestInvalid(f"not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ManifestInvalid("not a JSON object")
    if _members(document) != members:
        raise ManifestInvalid("an object has the same key twice")
    for key in document.keys() - _KEYS:
        if key.lower() in _FOLDED:
            raise ManifestInvalid(f"the key {key!r} differs from {_FOLDED[key.lower()]!r} only in case")
    return document


def _scan(body: bytes) -> int:
    """How many members all objects of the text have together; ManifestInvalid where it is too much to decode.

    Bytes are counted, nothing is built: 4 MiB of `[]` would be 83 MiB of lists.
    """
    if len(body) > MAX_MANIFEST:
        raise ManifestInvalid(f"larger than {MAX_MANIFEST} bytes")
    # At most as many as there are strings, twice: bounds the substitution, which costs a call a string.
    if body.count(b'"') - body.count(b'\\"') > 2 * MAX_TOKENS:
        raise ManifestInvalid("too many strings")
    bare = _STRING.sub(b"", body)
    members = bare.count(b":")
    brackets = bare.translate(None, _ALL_BUT_BRACKETS)
    if len(brackets) + members + bare.count(b",") > MAX_TOKENS:
        raise ManifestInvalid(f"more than {MAX_TOKENS} JSON tokens")
    if max(accumulate(map(_NESTING.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ManifestInvalid(f"nested deeper than {MAX_DEPTH}")
    return members


def _members(value: Any) -> int:
    """As `_scan` counts them, of the decoded value: fewer where an object had a key twice."""
    if type(value) is dict:
        nested = [child for child in value.values() if type(child) is dict or type(child) is list]
        return len(value) + sum(map(_members, nested))
    return sum(_members(child) for child in value if type(child) is dict or type(child) is list)


def _digest(type_: type, value: object) -> object:
    if type_ is not Digest or not isinstance(value, str):
        raise ValueError("not a digest")
    return Digest.parse(value)


def _media_type(content_type: str | None, wire: _Manifest, document: Mapping[str, Any]) -> str:
    """The one type that Content-Type, `mediaType` and the shape agree on."""
    sent = (content_type or "").partition(";")[0].strip().lower()
    declared = (wire.media_type or "").lower()
    generic = sent in _GENERIC_TYPES
    if declared and not generic and sent != declared:
        raise ManifestInvalid(f"sent as {sent} while its mediaType is {declared}")
    type_ = declared or (_guess(wire, document) if generic else sent)
    if type_ in media.SCHEMA1_TYPES or wire.schema_version == 1:
        raise ManifestInvalid("Docker's schema 1 is not served: build the image again with a current tool")
    if type_ not in media.KINDS:
        raise ManifestInvalid(f"not a manifest's media type: {type_[:200]!r}")
    return type_


def _guess(wire: _Manifest, document: Mapping[str, Any]) -> str:
    """OCI leaves `mediaType` out as often as not; Docker and artifact manifests always say what they are."""
    if wire.manifests is not None:
        return media.OCI_INDEX
    if wire.config is not None:
        return media.OCI_MANIFEST
    return media.DOCKER_SCHEMA1 if "fsLayers" in document else ""


def _check_shape(kind: media.Kind, wire: _Manifest, document: Mapping[str, Any]) -> None:
    foreign = sorted(_FOREIGN[kind] & document.keys())
    if foreign:
        raise ManifestInvalid(f"an {kind} manifest with {', '.join(foreign)}: it could be read as two things")
    required = _REQUIRED.get(kind)
    if required is not None and required not in document:
        raise ManifestInvalid(f"an {kind} manifest without {required}")
    if kind == "image" and wire.config is None:
        raise ManifestInvalid("an image manifest whose config is null")
    if wire.schema_version not in (2, None):
        raise ManifestInvalid(f"schemaVersion is {wire.schema_version}, not 2")


def _descriptors(wire: list[_Descriptor] | None) -> tuple[Descriptor, ...]:
    """Go writes an empty list as null."""
    if wire is None:
        return ()
    if len(wire) > MAX_DESCRIPTORS:
        raise ManifestInvalid(f"more than {MAX_DESCRIPTORS} layers or manifests")
    return tuple(map(_descriptor, wire))


def _descriptor(wire: _Descriptor) -> Descriptor:
    if not 0 <= wire.size < 1 << _SIZE_BITS:
        raise ManifestInvalid(f"the size of {wire.digest} is not a size")
    return Descriptor(
        media_type=wire.media_type,
        digest=wire.digest,
        size=wire.size,
        annotations=wire.annotations or {},
        artifact_type=wire.artifact_type,
        platform=wire.platform,
        urls=tuple(wire.urls or ()),
    )
