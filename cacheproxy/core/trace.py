"""What a request leads to, told while it happens: the words that every floor has for the spans of a trace.

Who collects them is the composition's to say (tracing/). Where nothing is traced `current` is None, and
telling costs one look at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, Self

from cacheproxy.core.failures import UpstreamError

Attributes = Mapping[str, str | int | float]
"""Named as OpenTelemetry's semantic conventions do where they have a name, else `cacheproxy.*` or `oci.*`."""


class Span(Protocol):
    """Something that takes time. None of it waits, none of it raises."""

    def child(self, name: str, *, client: bool = False) -> Self:
        """A part of it; `client`: a request to somebody else."""
        ...

    def apart(self, name: str) -> Self:
        """What it began and does not own: the first span of another trace. Each is linked to the other."""
        ...

    def link(self, other: Self) -> None:
        """It has to do with another span, of whatever trace."""
        ...

    def note(self, attributes: Attributes) -> None: ...

    def fail(self, kind: str) -> None:
        """`kind` is one of few words (OpenTelemetry's "error.type")."""
        ...

    def end(self) -> None: ...


current: ContextVar[Span | None] = ContextVar("span", default=None)
"""What is under way in this task. Tasks that it starts have it from it."""


def apart(name: str) -> Span | None:
    """For work that outlives who began it; None when that is not traced."""
    span = current.get()
    return None if span is None else span.apart(name)


def share(span: Span | None) -> None:
    """What is under way here waits for what `span` tells of, which somebody else began."""
    here = current.get()
    if here is not None and span is not None and here is not span:
        here.link(span)


@contextmanager
def within(span: Span | None) -> Iterator[None]:
    """What happens in the block belongs to the span, which ends with it."""
    if span is None:
        yield
        return
    before = current.set(span)
    try:
        yield
    except BaseException as error:
        span.fail(error.cause if isinstance(error, UpstreamError) else type(error).__name__)
        raise
    finally:
        current.reset(before)
        span.end()


@contextmanager
def step(name: str, *, client: bool = False) -> Iterator[Span | None]:
    """A part of what is under way; None when that is not traced."""
    parent = current.get()
    span = None if parent is None else parent.child(name, client=client)
    with within(span):
        yield span
