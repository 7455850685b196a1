"""Bringing a run of bytes from upstream, over however many connections, mirrors and setbacks it takes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.registry.plan import Claim

TRIES, TRIES_UNDER_WAY = 3, 4
"""Failures in a row, without progress in between, that end a transfer: before any of the blob has come, and
afterwards, when an upstream that restarts is worth some seconds. Progress starts the count anew: a transfer
has no total time and no total number of resumptions."""

PROGRESS = 64 << 10
"""Bytes that must have come for that. An upstream that breaks off after less, or drips (the least rate brings
60 KiB in the minute it is measured over), again and again, would hold its clients and a slot for ever."""

BACKOFF = (0.1, 1.0, 5.0)
"""Seconds before asking an upstream again that just failed, halved to whole at random; another mirror is
asked at once.
"""

PATIENCE_WITH_LIMITS = 30.0
"""A transfer that has already brought bytes waits at most so long (seconds) to be allowed again."""

_FINAL = frozenset({Cause.MISSING, Cause.AUTH, Cause.GATE, Cause.PROTOCOL})
"""What asking the same endpoint again will not change."""

_TIMED = frozenset({Cause.THROTTLED, Cause.BREAKER})
"""What asking again changes only after a time, which the error tells."""


class GaveWay(Exception):
    """Raised by whoever is delivered to: the slot goes to those in line, and the rest is asked for later."""


class Stream(Protocol):
    """An upstream's answer to a GET of a blob, after its header."""

    @property
    def status(self) -> int: ...
    @property
    def start(self) -> int:
        """Offset of the first byte that `chunks` gives."""
        ...

    @property
    def total(self) -> int | None:
        """The whole blob's size as the upstream says; None: it does not say."""
        ...

    @property
    def ranges(self) -> bool: ...
    @property
    def etag(self) -> str | None: ...
    @property
    def wanted(self) -> Callable[[], bool]:
        """Whether others wait in line for the slot that this answer holds."""
        ...

    @property
    def chunks(self) -> AsyncIterator[bytes]:
        """May be left half-way."""
        ...


class Upstream(Protocol):
    """What a transfer needs of `upstream.registry.Registry`."""

    @property
    def name(self) -> str: ...
    @property
    def endpoints(self) -> Sequence[object]:
        """As text: their addresses."""
        ...

    def open_blob(
        self,
        repository: str,
        digest: Digest,
        *,
        endpoint: int,
        start: int = 0,
        stop: int | None = None,
        etag: str | None = None,
    ) -> AbstractAsyncContextManager[Stream]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A repository of an upstream that is known to name the blob."""

    upstream: Upstream
    repository: str


Endpoint = tuple[str, int]
"""An upstream's name, and which of its endpoints."""


@dataclass(eq=False, slots=True)
class Candidate:
    """One endpoint of a source."""

    source: Source
    endpoint: int

    @property
    def name(self) -> Endpoint:
        return self.source.upstream.name, self.endpoint

    @property
    def origin(self) -> str:
        """Where the blob is there, across restarts."""
        return f"{self.source.upstream.endpoints[self.endpoint]} {self.source.repository}"

    def open(
        self, digest: Digest, claim: Claim, size: int, etag: str | None
    ) -> AbstractAsyncContextManager[Stream]:
        whole = claim.position == 0 and claim.stop == size
        return self.source.upstream.open_blob(
            self.source.repository,
            digest,
            endpoint=self.endpoint,
            start=claim.position,
            stop=None if whole else claim.stop,
            etag=etag if claim.position else None,
        )

    def failed(self, cause: Cause, what: str, status: int) -> UpstreamError:
        return UpstreamError(cause, what, self.source.upstream.name, status=status)


class Route:
    """The endpoints that may have a blob, in order of preference, and where among them we are.

    Shared by all transfers of a blob; how often one of them failed in a row is its own business.
    """

    def __init__(self, source: Source, suspects: Collection[Endpoint] = ()) -> None:
        """`suspects` have sent wrong bytes for this blob before: they are asked when nobody else has it."""
        self._candidates: list[Candidate] = []
        self._suspects = suspects
        self._at = 0
        self.etags: dict[str, str] = {}
        """The strong ETags by which origins know the blob: each is named to that origin only."""
        self.brought: set[Endpoint] = set()
        """Who has sent bytes."""
        self.progress = False
        """A transfer has brought something: clients wait for the rest."""
        self.add(source)

    def add(self, source: Source) -> None:
        """Another repository is known to have it: its endpoints come last."""
        if all(known.source != source for known in self._candidates):
            here = self._candidates[self._at] if self._candidates else None
            self._candidates += [Candidate(source, n) for n in range(len(source.upstream.endpoints))]
            self._candidates.sort(key=lambda candidate: candidate.name in self._suspects)
            self._at = 0 if here is None else self._candidates.index(here)

    @property
    def current(self) -> Candidate:
        return self._candidates[self._at]

    def opened(self, candidate: Candidate, etag: str | None) -> None:
        """It sends the blob now."""
        self.brought.add(candidate.name)
        if etag is None:
            self.etags.pop(candidate.origin, None)
        else:
            self.etags[candidate.origin] = etag

    def setback(self, error: UpstreamError, at: Candidate, failures: int) -> float:
        """Move on after the `failures`-th failure in a row of a transfer; return the seconds to wait first.

        Raises `error` when there is nothing left to try.
        """
        if error.cause in _FINAL:
            return self._give_up(error, at)
        tries = TRIES_UNDER_WAY if self.progress else TRIES
        if failures >= max(tries, len(self._candidates)):
            raise error
        if self.current is at:
            self._at = (self._at + 1) % len(self._candidates)
        if failures < len(self._candidates):
            return 0.0  # a mirror that was not asked yet
        if error.cause in _TIMED:
            return self._until_allowed(error)
        return BACKOFF[min(failures, len(BACKOFF)) - 1] * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _give_up(self, error: UpstreamError, at: Candidate) -> float:
        if self._candidates == [at]:
            raise error
        if at in self._candidates:  # else another transfer gave it up already
            here = self.current
            self._candidates.remove(at)
            self._at = 0 if here is at else self._candidates.index(here)
        return 0.0

    def _until_allowed(self, error: UpstreamError) -> float:
        if not self.progress:
            raise error  # nobody has heard of us yet: an honest 429 or 503 now beats a long silence
        return min(error.retry_after if error.retry_after is not None else 1.0, PATIENCE_WITH_LIMITS)


async def bring(
    claim: Claim,
    size: int,
    digest: Digest,
    route: Route,
    opened: Callable[[Stream], None],
    deliver: Callable[[bytes], Awaitable[None]],
) -> None:
    """Deliver the claim's bytes in order. `deliver` moves `claim.position`; `opened` hears of each answer.

    Raises UpstreamError when every endpoint has failed for good, and what `deliver` raises.
    """
    failures = 0
    while claim.left > 0:
        candidate = route.current
        begun = claim.position
        try:
            async with candidate.open(digest, claim, size, route.etags.get(candidate.origin)) as stream:
                _judge(stream, claim, size, candidate)
                route.opened(candidate, stream.etag)
                opened(stream)
                begun = claim.position  # elsewhere, where the upstream does no ranges
                await _pour(stream, claim, candidate, deliver)
        except UpstreamError as error:
            brought = claim.position - begun
            route.progress |= brought >= PROGRESS
            failures = 1 if brought >= PROGRESS else failures + 1
            await trio.sleep(route.setback(error, candidate, failures))
        else:
            route.progress = True


def _judge(stream: Stream, claim: Claim, size: int, candidate: Candidate) -> None:
    if stream.total is not None and stream.total != size:
        what = f"says the blob has {stream.total} bytes where its manifest says {size}"
        raise candidate.failed(Cause.PROTOCOL, what, stream.status)
    if stream.start > claim.position:
        what = f"answered from byte {stream.start} where {claim.position} was asked for"
        raise candidate.failed(Cause.PROTOCOL, what, stream.status)


async def _pour(
    stream: Stream, claim: Claim, candidate: Candidate, deliver: Callable[[bytes], Awaitable[None]]
) -> None:
    # An upstream without ranges starts from 0 again: what is here already is passed over.
    surplus = claim.position - stream.start
    async for chunk in stream.chunks:
        fresh = chunk[surplus:] if surplus else chunk
        surplus = max(0, surplus - len(chunk))
        if fresh:
            # Bytes over the end (of the blob, or of a claim that was split) are left on the wire.
            await deliver(fresh if len(fresh) <= claim.left else fresh[: claim.left])
        if claim.left <= 0:
            return
    raise candidate.failed(Cause.CONNECT, f"ended the blob {claim.left} bytes early", stream.status)
