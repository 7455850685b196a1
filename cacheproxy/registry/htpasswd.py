"""Files of names and hashes of passwords, as `htpasswd -B` writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cacheproxy.core.rights import NAME

MAX_FILE = 1 << 20
"""Bytes: some ten thousand names."""

_LINE = re.compile(rf"({NAME}):(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{{53}})")

COSTS = range(4, 16)
"""Of bcrypt. At 15 one password takes some 2 s of a processor."""


def parse(text: str) -> Mapping[str, bytes]:
    """Hashes by name. Raises ValueError, which names the line and none of what is in it."""
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None or int(match[3]) not in COSTS:
            raise ValueError(
                f"line {number} is no name with a bcrypt hash of cost {COSTS[0]} to {COSTS[-1]};"
                " write it with: htpasswd -B FILE NAME"
            )
        if match[1] in hashes:
            raise ValueError(f"line {number} has a name that is there already")
        hashes[match[1]] = match[2].encode()
    return hashes
