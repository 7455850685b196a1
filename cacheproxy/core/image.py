"""Images as people write them: "debian", "ghcr.io/org/tool:1.2", "quay.io/org/tool@sha256:...".

Which repository the name means is a matter of routes, as for a client that asks for it.
"""

from __future__ import annotations

from typing import NamedTuple

from cacheproxy.core.digest import Digest
from cacheproxy.core.name import parse_digest, parse_requested, parse_tag

DEFAULT_TAG = "latest"


class ImageName(NamedTuple):
    name: str
    """With its registry or prefix, if it was written with one."""
    reference: Digest | str | None
    """Digest or tag; None: neither was written."""


def parse_image(text: str) -> ImageName:
    """Raises OCIError NAME_INVALID, TAG_INVALID, DIGEST_INVALID. With both a tag and a digest, the digest
    counts."""
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    reference: Digest | str | None = parse_tag(tag) if colon else None
    if at:
        reference = parse_digest(digest)
    return ImageName(parse_requested(f"{head}{slash}{last}"), reference)
