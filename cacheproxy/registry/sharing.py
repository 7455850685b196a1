"""Who began what several requests wait for: told to the log and to the traces of those who came later.

What is asked upstream is logged with the id of the request that began it. The line of one that waited for it
names that request, so that a client's error leads to what the upstream said.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

import structlog

from cacheproxy.core import trace

_shared: ContextVar[str] = ContextVar("shared", default="")


class Begun(NamedTuple):
    """Work that others may wait for."""

    request: str
    """The id of who began it; "" where that was no request."""
    span: trace.Span | None

    def join(self) -> None:
        """The request of this task waits for it, too."""
        _shared.set(self.request)
        trace.share(self.span)


def begun(span: trace.Span | None) -> Begun:
    """By the request of this task; `span` tells of the work, or of who began it."""
    return Begun(structlog.contextvars.get_contextvars().get("request", ""), span)


def take() -> str:
    """The id of who began what this task's request waited for; "": it waited for nobody. Asked at the end of
    each request, for the next one of the connection is the same task's.
    """
    request = _shared.get()
    if request:
        _shared.set("")
    return request
