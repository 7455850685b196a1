"""Percent-encoding (RFC 3986, section 2.1), decoded exactly once."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_ENCODED = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def decode(text: str) -> str:
    """Raises ValueError: not visible ASCII, "%" without two hex digits, not UTF-8, or a control character."""
    if _ENCODED.fullmatch(text) is None:
        raise ValueError(f"not visible ASCII, or a bad percent-encoding: {text[:100]!a}")
    if "%" not in text:
        return text
    decoded = unquote_to_bytes(text).decode("utf-8")
    if _CONTROL.search(decoded):
        raise ValueError(f"a control character is encoded in it: {text[:100]!a}")
    return decoded
