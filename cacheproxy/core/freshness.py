"""When a cached tag is served, asked for again, or served although the upstream fails.

A digest needs none of this: what it names never changes. Times are seconds since the epoch, and an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.patterns import Patterns


@dataclass(frozen=True, slots=True)
class FreshRule:
    tags: Patterns
    seconds: float
    """How long after the upstream was asked such a tag is served without asking; may be infinite."""


@dataclass(frozen=True, slots=True)
class StaleRule:
    """What is served when the upstream cannot be asked."""

    seconds: float
    """How long after the upstream was last asked with success."""
    causes: frozenset[Cause]


@dataclass(frozen=True, slots=True)
class TagState:
    """What is known of a tag whose image is here."""

    digest: Digest
    """Of the image that can be served."""
    checked: float
    """When the upstream last said what the tag means."""
    pending: Digest | None = None
    """What the upstream said then, where that image is not here yet."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Fresh: no need to ask."""

    until: float


@dataclass(frozen=True, slots=True)
class Revalidate:
    """Ask what the tag means (HEAD), get only what moved."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get it: nothing is here, or what is here is known to be outdated."""


def lifetime(rules: Iterable[FreshRule], tag: str) -> float:
    """Seconds for which the tag is fresh, by the first rule that matches; without one it never is."""
    return next((rule.seconds for rule in rules if rule.tags.matches(tag)), 0.0)


def decide(state: TagState | None, lifetime: float, now: float) -> Serve | Revalidate | Fetch:
    if state is None or state.pending is not None:
        return Fetch()
    # A check that lies in the future is a clock that was set back: it must not keep a tag fresh for years.
    if 0 <= now - state.checked < lifetime:
        return Serve(state.checked + lifetime)
    return Revalidate()


def may_serve_stale(state: TagState, rule: StaleRule, error: UpstreamError, now: float) -> bool:
    """Whether the image that is here may stand in for one that could not be had.

    An open breaker counts as what opened it.
    """
    return error.root in rule.causes and now - state.checked <= rule.seconds
