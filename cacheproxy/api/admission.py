"""Who asks, as a door wants to know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cacheproxy.api.caller import Caller
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Right
from cacheproxy.edge.message import Peer, Request


class Admission(Protocol):
    """Who asks, and what is said to those who may not."""

    def known(self, headers: Mapping[str, str], peer: Peer) -> Caller | None:
        """The caller, if nothing has to be looked up for it."""
        ...

    async def identify(self, request: Request) -> Caller:
        """Raises OCIError 401 for credentials that prove nothing."""
        ...

    def admits(self, request: Request, caller: Caller, right: Right, repository: str) -> bool:
        """Whether the caller has the right there: a decision, not a question."""
        ...

    def refusal(
        self, request: Request, caller: Caller, right: Right | None, repository: str | None
    ) -> OCIError: ...

    def challenges(self, request: Request) -> bool:
        """Whether a ping of this request is answered with a challenge."""
        ...

    def challenge(self, request: Request) -> OCIError: ...
