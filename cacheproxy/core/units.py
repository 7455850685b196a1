"""Durations, sizes and shares, as a person writes them in the configuration.

Each reader raises ValueError with a text that says what is expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([A-Za-z%]+)")

_SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: Mapping[str, float] = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SHARE: Mapping[str, float] = {"%": 0.01}


def parse_duration(text: str) -> float:
    """Seconds; "forever" is infinite."""
    if text == "forever":
        return math.inf
    return _quantity(text, _SECONDS, 'a duration: "90s", "5m", "24h", "30d", "forever"')


def parse_size(text: str) -> int:
    """Bytes, rounded down to whole ones."""
    return int(_quantity(text, _BYTES, 'a size: "512B", "64KiB", "4MiB", "200GiB", "2TiB"'))


def parse_share(text: str) -> float:
    """Between 0 and 1."""
    advice = 'a share: "0%" to "100%"'
    share = _quantity(text, _SHARE, advice)
    if share > 1:
        raise ValueError(f"{text!r} is not {advice}")
    return share


def _quantity(text: str, units: Mapping[str, float], advice: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not {advice}")
    return float(match[1]) * units[match[2]]
