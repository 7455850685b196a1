"""Who asks for what is done in a task, for the events that tell of it."""

from __future__ import annotations

from cacheproxy.api.caller import Caller
from cacheproxy.core import events
from cacheproxy.core.events import By
from cacheproxy.edge.message import Request

USER_AGENT = 512
"""Characters of it that are told."""


def noted_by(caller: Caller, request: Request) -> None:
    """From now on, and until another request in this task."""
    by = By(
        caller.name,
        request.id,
        str(request.peer.address or "unix"),
        f"{request.peer.scheme}://{request.host}",
        request.method,
        request.headers.get("user-agent", "")[:USER_AGENT],
    )
    events.by.set(by)
