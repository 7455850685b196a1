"""How the daemon is: its upstreams, its running fills and its space."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cacheproxy.core.digest import Digest
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.orphans import Sweep
from cacheproxy.registry.space import Space
from cacheproxy.store.content import UNLIMITED
from cacheproxy.upstream.pacing import Health


class Watched(Protocol):
    """What is asked of an `upstream.registry.Registry`."""

    @property
    def name(self) -> str: ...
    @property
    def registry(self) -> str: ...
    @property
    def health(self) -> list[Health]: ...


@dataclass(frozen=True, slots=True)
class HostCondition:
    host: str
    left_alone: bool
    """Its breaker is open."""
    failing: str | None
    """The cause of its failures in a row; None: there are none."""
    answered_ago: float | None
    """Seconds; None: it has not answered since the start."""


@dataclass(frozen=True, slots=True)
class UpstreamCondition:
    upstream: str
    registry: str
    hosts: tuple[HostCondition, ...]


@dataclass(frozen=True, slots=True)
class Arriving:
    digest: Digest
    size: int
    held: int


@dataclass(frozen=True, slots=True)
class Condition:
    started: float
    """Seconds since the epoch."""
    uptime: float
    cached: int
    """Bytes: stored, partial, and promised to fills."""
    budget: int | None
    free: int | None
    """Bytes of the file system that are free to us; None: the store has no end, and no `total`."""
    total: int | None
    upstreams: tuple[UpstreamCondition, ...]
    fills: tuple[Arriving, ...]
    sweep_stopped: str
    """Why files without a row are left where they are; "": they are not."""


class Watch:
    def __init__(
        self,
        upstreams: Iterable[Watched],
        fills: Fills,
        space: Space,
        capacity: Callable[[], tuple[int, int]],
        clock: Callable[[], float],
        started: float | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        """`capacity` gives (free, total) bytes of the file system. Without `started`, it is now."""
        self._upstreams = tuple(upstreams)
        self._fills = fills
        self._space = space
        self._capacity = capacity
        self._clock = clock
        self._started = clock() if started is None else started
        self._sweep = sweep or Sweep()

    def condition(self) -> Condition:
        free, total = self._capacity()
        endless = total >= UNLIMITED
        return Condition(
            self._started,
            self._clock() - self._started,
            self._space.used,
            self._space.budget,
            None if endless else free,
            None if endless else total,
            tuple(_upstream(upstream) for upstream in self._upstreams),
            tuple(
                Arriving(fill.digest, fill.size, self._fills.held(fill.digest) or 0) for fill in self._fills
            ),
            self._sweep.stopped,
        )


def _upstream(upstream: Watched) -> UpstreamCondition:
    hosts = (
        HostCondition(health.host, health.open, health.because, health.answered) for health in upstream.health
    )
    return UpstreamCondition(upstream.name, upstream.registry, tuple(hosts))
