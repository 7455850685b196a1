"""A daemon's days as seconds: what waits for a grace, a lease or a look goes on within a short test.

Armed in the daemon's own process, before it starts.
"""

from __future__ import annotations

import inspect
from typing import Any

from cacheproxy.registry import collection, eviction, hosting, orphans, push
from cacheproxy.store import collection as rows

GRACE = 3.0
"""Seconds that a blob without an image is kept; half of it is promised to whoever asks."""

TIMES: tuple[tuple[Any, str, float], ...] = (
    (collection, "EVERY", 0.2),
    (collection, "LEASE", 1.0),  # of a collector that was killed
    (rows, "TRASHED", 1.0),
    (eviction, "TIDY_EVERY", 0.3),
    (push, "EXPIRE_EVERY", 0.5),
    (orphans, "FIRST", 0.1),
    (orphans, "EVERY", 2.0),
    (orphans, "GRACE", 30.0),
    (orphans, "AGAIN", 5.0),
)

GRACES = (push.Push, collection.Collector, hosting.Hosting)
"""Classes that are given `grace` by nobody but a test."""


def arm() -> None:
    for module, name, seconds in TIMES:
        assert isinstance(getattr(module, name), float)
        setattr(module, name, seconds)
    for kind in GRACES:
        _default(kind.__init__, "grace", GRACE)


def _default(function: Any, name: str, value: float) -> None:
    """Another default of the parameter, which is one that can be given by position."""
    given = [
        each for each in inspect.signature(function).parameters.values() if each.default is not each.empty
    ]
    function.__defaults__ = tuple(value if each.name == name else each.default for each in given)
    assert inspect.signature(function).parameters[name].default == value
