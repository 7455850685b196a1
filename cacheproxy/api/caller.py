"""Who asks, as a handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cacheproxy.core.rights import Right


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    """As rules call it: "user:terraform", "anonymous"."""
    may: Callable[[Right, str], bool]
    """Whether it has the right in a repository, by canonical name."""
