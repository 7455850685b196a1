"""Repository names, tags and references: parsed once, at the door (distribution-spec, "Pull")."""

from __future__ import annotations

import re

from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.core.errors import OCIError

MAX_NAME = 255
"""Characters. The specification leaves it open; clients limit a name together with its host to this."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REQUESTED = re.compile(rf"(?:{_COMPONENT}:[0-9]{{1,5}}/)?{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def parse_repository(text: str) -> str:
    """A repository's name by the specification's grammar; raises OCIError NAME_INVALID."""
    return _name(_REPOSITORY, text)


def parse_requested(text: str) -> str:
    """A repository as a client may ask for it: as above, and the first segment may be a host with its port.

    Raises OCIError NAME_INVALID.
    """
    return _name(_REQUESTED, text)


def _name(grammar: re.Pattern[str], text: str) -> str:
    if len(text) > MAX_NAME:
        raise OCIError("NAME_INVALID", f"the repository name has more than {MAX_NAME} characters")
    if grammar.fullmatch(text) is None:
        raise OCIError(
            "NAME_INVALID",
            "not a repository name: its segments are lower-case letters and digits, joined by . _ __ or -",
            detail={"name": ascii(text)},
        )
    return text


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def parse_tag(text: str) -> str:
    """Raises OCIError TAG_INVALID."""
    if not is_tag(text):
        raise OCIError(
            "TAG_INVALID",
            "not a tag: up to 128 letters, digits, '.', '_' and '-', the first of them neither '.' nor '-'",
            detail={"tag": ascii(text[:150])},
        )
    return text


def parse_digest(text: str) -> Digest:
    """Raises OCIError DIGEST_INVALID."""
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise OCIError("DIGEST_INVALID", str(error)) from None


def parse_reference(text: str) -> Digest | str:
    """A digest or a tag. No tag holds a ":", each digest does. Raises DIGEST_INVALID, TAG_INVALID."""
    return parse_digest(text) if ":" in text else parse_tag(text)


def fallback_tag(digest: Digest) -> str:
    """The tag under which referrers are kept where their API is not (spec, "Referrers Tag Schema")."""
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"
