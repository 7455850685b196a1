"""What all connections of a server share."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cacheproxy.edge import head
from cacheproxy.edge.forwarded import Forwarding
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.message import Application, Log
from cacheproxy.edge.prefilter import Refusal


def request_ids() -> Callable[[], str]:
    """16 hex digits a call: unlike any other process's, and in order within this one."""
    prefix, count = os.urandom(4).hex(), itertools.count(1)
    return lambda: f"{prefix}{next(count) & 0xFFFFFFFF:08x}"


@dataclass(slots=True)
class Edge:
    application: Application
    limits: Limits
    forwarding: Forwarding
    log: Log
    draining: bool = False
    """Each answer from now on is its connection's last."""
    ending: head.Ending = field(default_factory=head.Ending)
    next_id: Callable[[], str] = field(default_factory=request_ids)

    def refusal(self, refusal: Refusal, request_id: str) -> tuple[bytes, bytes]:
        """Head and body of an answer that ends the connection, where there is no request to answer."""
        response = self.application.refuse(refusal.status, refusal.message, request_id)
        content = response.body if isinstance(response.body, bytes) else b""
        start = head.render(response.status, response.headers, len(content))
        return start + self.ending.lines(time.time(), close=True), content
