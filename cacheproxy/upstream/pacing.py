"""How fast an upstream is asked, and when it is not asked at all.

Slots: blob transfers are counted per upstream; everything else has slots of its own, so that a manifest never
waits for a layer. Nobody waits for a slot while holding one.
Back-off: a 429 stops the lane it came on, for all requests; each of them fails at once, and is told how long.
Breaker: a host that only fails is left alone for a while, then tried with one request. One that cannot be
reached is left alone for all requests, one that answers with failures for those of the lane: registries keep
blobs elsewhere than manifests, and one store's trouble is not the other's.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import NamedTuple

import httpx
import structlog
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream import metrics
from cacheproxy.upstream.redirects import Place, place

log = structlog.get_logger()

CONTROL_SLOTS = 16
"""Requests at once that are not for blobs: more than one build asks for, far fewer than a registry minds."""

SLOT_SECONDS = 300.0
"""Longest wait for a slot: after so long without a byte containerd gives up too."""

LONGEST_PAUSE = 60.0
"""Seconds, whatever an upstream asks for: Docker Hub's limits count by the hour, but a login lifts them."""

FAILURES = 5
"""In a row, that open a breaker."""

OPEN_SECONDS = 10.0
"""How long a breaker keeps requests away before it tries one."""

FAILING = frozenset({Cause.SERVER, Cause.TIMEOUT, Cause.DNS, Cause.CONNECT, Cause.TLS})
"""What says that a host is not well. All else is an answer."""

_NUMBER = re.compile(r"[ \t]*([0-9]{1,9})")
_SECONDS = re.compile(r"[0-9]{1,18}")


class Lane(StrEnum):
    CONTROL = "control"
    """Manifests, HEADs, lists, tokens."""
    BLOB = "blob"


class Slots:
    """How many requests an upstream gets at once, by lane."""

    def __init__(self, upstream: str, connections: int) -> None:
        self._upstream = upstream
        self._most = {Lane.CONTROL: CONTROL_SLOTS, Lane.BLOB: connections}
        self._free = {lane: trio.Semaphore(most) for lane, most in self._most.items()}

    @asynccontextmanager
    async def hold(self, lane: Lane, deadline: float = math.inf) -> AsyncIterator[None]:
        """A slot, once it is our turn in line; waits until `deadline` (trio's clock) or SLOT_SECONDS.

        Raises UpstreamError TIMEOUT. What is waited for here is not the host, so no breaker hears of it.
        """
        began = trio.current_time()
        with trio.CancelScope(deadline=min(deadline, began + SLOT_SECONDS)) as patience:
            await self._free[lane].acquire()
        if patience.cancelled_caught:
            what = (
                f"has had all its {self._most[lane]} connections busy for {trio.current_time() - began:.0f} s"
            )
            raise UpstreamError(Cause.TIMEOUT, what, self._upstream)
        try:
            yield
        finally:
            self._free[lane].release()

    def wanted(self, lane: Lane) -> bool:
        """Whether somebody waits in line."""
        return self._free[lane].statistics().tasks_waiting > 0


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, 0 to LONGEST_PAUSE, by a Retry-After (RFC 9110 section 10.2.3); None: it says nothing.

    `now` is the wall clock. Docker Hub puts a point in time where seconds belong; that too ends at the cap.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return min(float(value), LONGEST_PAUSE)
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at - now, 0.0), LONGEST_PAUSE)


class RateLimit(NamedTuple):
    limit: int | None
    remaining: int | None


def parse_ratelimit(headers: Mapping[str, str]) -> RateLimit:
    """RateLimit-Limit and RateLimit-Remaining ("100;w=21600"), or the same with X- before them."""
    return RateLimit(_first_number(headers, "ratelimit-limit"), _first_number(headers, "ratelimit-remaining"))


def _first_number(headers: Mapping[str, str], name: str) -> int | None:
    found = _NUMBER.match(headers.get(name) or headers.get(f"x-{name}") or "")
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Backoff:
    until: float = -math.inf
    pause: float = 0.0
    """The last one, where the upstream named none."""

    def throttled(self, retry_after: float | None, now: float) -> Backoff:
        """A 429. Without a Retry-After the pause doubles each time, from 1 s."""
        if retry_after is not None:
            return replace(self, until=max(self.until, now + retry_after))
        if now < self.until:  # sent before the one that set the pause
            return self
        pause = min(max(1.0, 2 * self.pause), LONGEST_PAUSE)
        return Backoff(now + pause, pause)

    def passed(self, now: float) -> Backoff:
        """A request went well."""
        return self if now < self.until else Backoff()


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed: everybody passes. Open: nobody. After OPEN_SECONDS one passes, and its fate decides."""

    failures: int = 0
    because: Cause | None = None
    """The last failure's cause."""
    open_until: float | None = None
    """None: closed."""
    probing: bool = False

    @property
    def is_open(self) -> bool:
        return self.open_until is not None

    def lets_pass(self, now: float) -> bool:
        return self.open_until is None or (now >= self.open_until and not self.probing)

    def entered(self) -> Breaker:
        """A request was let pass: while open, it is the probe."""
        return self if self.open_until is None else replace(self, probing=True)

    def failed(self, cause: Cause, now: float, *, probe: bool) -> Breaker:
        """Requests that were under way when it opened change nothing by failing."""
        if self.open_until is not None and not probe:
            return self
        failures = self.failures + 1
        opens = probe or failures >= FAILURES
        return Breaker(failures, cause, now + OPEN_SECONDS if opens else None)

    def left(self, *, probe: bool) -> Breaker:
        """A request ended without saying anything about the host: its client went away."""
        return replace(self, probing=False) if probe else self


class Health(NamedTuple):
    """How a host has been."""

    host: str
    open: bool
    """It is left alone for a while."""
    because: Cause | None
    """What its last failures in a row were, if it has not answered since."""
    answered: float | None
    """Seconds since it last did; None: not since the start."""


class Pace:
    """One host of an upstream: whether it may be asked now. Reads trio's clock."""

    def __init__(self, upstream: str, host: str) -> None:
        self._upstream = upstream
        self._host = host
        self._backoffs = dict.fromkeys(Lane, Backoff())
        self._breakers = dict.fromkeys(Lane, Breaker())
        self._answered: float | None = None

    @property
    def health(self) -> Health:
        ago = None if self._answered is None else trio.current_time() - self._answered
        worst = max(self._breakers.values(), key=lambda breaker: (breaker.is_open, breaker.failures))
        return Health(self._host, worst.is_open, worst.because, ago)

    def enter(self, lane: Lane) -> bool:
        """Before a request. Returns whether it is the breaker's probe, to be handed back at its end.

        Raises UpstreamError THROTTLED or BREAKER.
        """
        now = trio.current_time()
        wait = self._backoffs[lane].until - now
        if wait > 0:
            what = f"asked for a pause (429) that lasts another {math.ceil(wait)} s"
            raise UpstreamError(Cause.THROTTLED, what, self._upstream, status=429, retry_after=wait)
        if not self._breakers[lane].lets_pass(now):
            raise self._refusal(self._breakers[lane], now)
        self._breakers[lane] = self._breakers[lane].entered()
        return self._breakers[lane].probing

    def answered(self, lane: Lane, *, throttled: bool = False, retry_after: float | None = None) -> None:
        """It answered. `throttled`: with a 429."""
        backoff = self._backoffs[lane]
        self._answered = now = trio.current_time()
        self._backoffs[lane] = backoff.throttled(retry_after, now) if throttled else backoff.passed(now)
        reached = (one for one, breaker in self._breakers.items() if breaker.because is not Cause.SERVER)
        self._move(dict.fromkeys((lane, *reached), Breaker()))

    def failed(self, lane: Lane, cause: Cause, *, probe: bool) -> None:
        if cause not in FAILING:
            self.left(lane, probe=probe)
            return
        now, lanes = trio.current_time(), (lane,) if cause is Cause.SERVER else tuple(Lane)
        self._move({at: self._breakers[at].failed(cause, now, probe=probe and at is lane) for at in lanes})

    def left(self, lane: Lane, *, probe: bool) -> None:
        self._breakers[lane] = self._breakers[lane].left(probe=probe)

    def retire(self) -> None:
        """Nobody asks this host any more: it is no longer among those left alone."""
        if self.health.open:
            metrics.BREAKER_OPEN.labels(self._upstream).dec()
        self._breakers = dict.fromkeys(Lane, Breaker())

    def _move(self, breakers: Mapping[Lane, Breaker]) -> None:
        before, self._breakers = self.health, {**self._breakers, **breakers}
        after = self.health
        if after.open != before.open:
            metrics.BREAKER_OPEN.labels(self._upstream).inc(1 if after.open else -1)
            what = "upstream left alone" if after.open else "upstream is back"
            log.warning(what, upstream=self._upstream, host=self._host, cause=after.because)

    def _refusal(self, breaker: Breaker, now: float) -> UpstreamError:
        wait = max((breaker.open_until or now) - now, 1.0)
        what = f"is left alone for {math.ceil(wait)} s after {breaker.failures} failures in a row"
        return UpstreamError(Cause.BREAKER, what, self._upstream, retry_after=wait, because=breaker.because)


class Paces:
    """The hosts of one upstream: its endpoints, and the token servers it may name."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._paces: dict[Place, Pace] = {}

    def of(self, url: httpx.URL) -> Pace:
        at = place(url)
        if at not in self._paces:
            self._paces[at] = Pace(self._upstream, at[1])
        return self._paces[at]

    def retire(self) -> None:
        """The upstream is not asked any more."""
        for pace in self._paces.values():
            pace.retire()
