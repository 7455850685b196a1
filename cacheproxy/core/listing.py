"""Paging of lists, and the Link header that leads on (distribution-spec, "Listing Tags"; RFC 8288).

By key, never by offset, so that what comes and goes meanwhile moves nothing else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

_PARAMETER = r"""[ \t]*;[ \t]*([^=,;"<> \t]++)(?:[ \t]*=[ \t]*(?:"([^"]*+)"|([^",;<> \t]++)))?"""
_PARAMETERS = re.compile(_PARAMETER)
_LINK = re.compile(rf"<([^<>]*+)>((?:{_PARAMETER})*+)")


def page(items: Sequence[str], n: int | None, last: str | None) -> tuple[Sequence[str], bool]:
    """The `n` items (None: all) that come after `last`, and whether there are more.

    `items` are sorted by code point. `last` need not be among them any more. n=0 is an empty last page.
    """
    start = 0 if last is None else bisect_right(items, last)
    stop = len(items) if n is None else min(start + n, len(items))
    return items[start:stop], n != 0 and stop < len(items)


def link(path: str, n: int, last: str, keep: Mapping[str, str] | None = None) -> str:
    """The value of Link that names the page after `last`. `keep`: parameters to repeat (ns)."""
    query = urlencode({**(keep or {}), "n": str(n), "last": last}, quote_via=quote, safe="")
    return f'<{path}?{query}>; rel="next"'


def next_link(header: str) -> str | None:
    """The target of the first link whose relation is "next", as it stands there; None: no next page."""
    for found in _LINK.finditer(header):
        parameters = _PARAMETERS.findall(found[2])
        relations = next((quoted or bare for name, quoted, bare in parameters if name.lower() == "rel"), "")
        if "next" in relations.lower().split():
            return found[1]
    return None
