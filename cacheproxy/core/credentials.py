"""What an Authorization header says: a name and a password, or a token."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

MAX_CREDENTIALS = 8192
"""Characters of a header that are looked at."""

_BASIC = re.compile(r"basic +([A-Za-z0-9+/=]+)", re.IGNORECASE)
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)


class Login(NamedTuple):
    name: str
    password: str


def parse_basic(header: str) -> Login | None:
    """RFC 7617; None for anything else, and for what is not well-formed."""
    match = _BASIC.fullmatch(header) if len(header) <= MAX_CREDENTIALS else None
    if match is None:
        return None
    try:
        name, colon, password = base64.b64decode(match[1], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Login(name, password) if colon else None


def parse_bearer(header: str) -> str | None:
    """RFC 6750, section 2.1; None for anything else."""
    match = _BEARER.fullmatch(header) if len(header) <= MAX_CREDENTIALS else None
    return None if match is None else match[1]
