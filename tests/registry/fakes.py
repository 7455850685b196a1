"""An upstream in memory: it serves one blob on a virtual clock, counts, and misbehaves as told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.pacing import Lane, Slots

Fault = Callable[["Answer"], None]


@dataclass
class Answer:
    """One answer to a GET of the blob; a fault changes it before it is given."""

    endpoint: int
    asked: tuple[int, int | None]
    etag_asked: str | None
    status: int
    start: int
    stop: int
    total: int | None
    ranges: bool
    etag: str | None
    wanted: Callable[[], bool]
    body: bytes
    breaks_after: int | None = None
    """Bytes of the body after which `error` is raised."""
    error: UpstreamError | None = None
    error_at_once: UpstreamError | None = None
    sent: int = 0

    pace: Callable[[int], float] = lambda _: 0.0
    chunk: int = 64 << 10

    @property
    def chunks(self) -> Answer:
        return self

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        stop = min(self.sent + self.chunk, len(self.body))
        part = self.body[self.sent : stop if self.breaks_after is None else min(stop, self.breaks_after)]
        if part:
            await trio.sleep(self.pace(len(part)))
            self.sent += len(part)
            return part
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration


@dataclass
class FakeUpstream:
    data: bytes
    name: str = "hub"
    mirrors: int = 1
    rate: float | None = None
    """Bytes a (virtual) second of one transfer; None: at once."""
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)
    """Taken one an answer, in order."""
    answers: list[Answer] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    chunk: int = 64 << 10
    connections: int = 1000

    def __post_init__(self) -> None:
        self._slots = Slots(self.name, self.connections)

    @property
    def endpoints(self) -> tuple[int, ...]:
        return tuple(range(self.mirrors))

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)

    @property
    def sent(self) -> int:
        """Bytes of all answers together."""
        return sum(answer.sent for answer in self.answers)

    @property
    def asked(self) -> list[tuple[int, int | None]]:
        return [answer.asked for answer in self.answers]

    @asynccontextmanager
    async def open_blob(
        self,
        repository: str,
        digest: Digest,
        *,
        endpoint: int,
        start: int = 0,
        stop: int | None = None,
        etag: str | None = None,
    ) -> AsyncIterator[Answer]:
        async with self._slots.hold(Lane.BLOB):
            answer = self._answer(endpoint, start, stop, etag)
            if answer.error_at_once is not None:
                raise answer.error_at_once
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                yield answer
            finally:
                self.at_once -= 1

    def _answer(self, endpoint: int, start: int, stop: int | None, etag: str | None) -> Answer:
        ranged = self.ranges and (start > 0 or stop is not None)
        begin, end = (start, stop or len(self.data)) if ranged else (0, len(self.data))
        answer = Answer(
            endpoint,
            (start, stop),
            etag,
            206 if ranged else 200,
            begin,
            end,
            len(self.data),
            self.ranges,
            f'"{endpoint}"',
            lambda: self._slots.wanted(Lane.BLOB),
            self.data[begin:end],
            chunk=self.chunk,
        )
        if self.rate is not None:
            rate = self.rate
            answer.pace = lambda count: count / rate
        if self.faults:
            self.faults.pop(0)(answer)
        self.answers.append(answer)
        return answer


def breaks_after(count: int, cause: Cause = Cause.CONNECT) -> Fault:
    def fault(answer: Answer) -> None:
        answer.breaks_after = count
        answer.error = UpstreamError(cause, f"broke after {count} bytes", "hub")

    return fault


def ends_after(count: int) -> Fault:
    def fault(answer: Answer) -> None:
        answer.breaks_after = count

    return fault


def refuses(cause: Cause, retry_after: float | None = None) -> Fault:
    def fault(answer: Answer) -> None:
        answer.error_at_once = UpstreamError(cause, f"refused: {cause}", "hub", retry_after=retry_after)

    return fault


def lies(answer: Answer) -> None:
    """Other bytes than the digest's, of the right length."""
    answer.body = bytes(len(answer.body))


def claims(total: int) -> Fault:
    def fault(answer: Answer) -> None:
        answer.total = total

    return fault


def works(answer: Answer) -> None:
    """No fault: a place in the list of faults."""
