"""The query of a request: strict, decoded once, small."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cacheproxy.core.errors import OCIError
from cacheproxy.core.percent import decode

_NUMBER = re.compile(r"[0-9]+")  # int() alone takes " 5", "1_0" and other scripts' digits

MAX_QUERY = 4096
"""Characters: several times what any client sends."""

MAX_PARAMETERS = 64

MAX_PAGE = 1000
"""Items. What a client may ask for beyond it is cut to it (CVE-2023-2253 was an `n` taken at its word)."""


def parse_query(raw: str) -> dict[str, list[str]]:
    """Parameters in order, repeated ones kept. "+" stays "+": a media type has one, nothing here has a space.

    Raises OCIError (400) on what is too long, not ASCII, or badly encoded.
    """
    if len(raw) > MAX_QUERY or raw.count("&") >= MAX_PARAMETERS:
        raise _bad("the query is too long")
    parameters: dict[str, list[str]] = {}
    for part in raw.split("&"):
        if part:
            name, _, value = part.partition("=")
            parameters.setdefault(_decode(name), []).append(_decode(value))
    return parameters


def first(parameters: Mapping[str, Sequence[str]], name: str) -> str | None:
    """The parameter's value; of a repeated one the first."""
    values = parameters.get(name)
    return values[0] if values else None


def parse_n(values: Sequence[str]) -> int | None:
    """The page size that `n` asks for, 0 to MAX_PAGE; None: no `n`. Raises PAGINATION_NUMBER_INVALID."""
    if not values:
        return None
    if len(values) > 1 or _NUMBER.fullmatch(values[0]) is None:
        raise OCIError("PAGINATION_NUMBER_INVALID", "n takes one number, in decimal digits")
    digits = values[0].lstrip("0")
    return min(int(digits or "0"), MAX_PAGE) if len(digits) <= 4 else MAX_PAGE


def _decode(text: str) -> str:
    try:
        return decode(text)
    except ValueError as error:
        raise _bad(f"the query is not well-formed: {error}") from None


def _bad(message: str) -> OCIError:
    return OCIError("UNSUPPORTED", message, status=400)
