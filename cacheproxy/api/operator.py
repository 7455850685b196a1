"""The admin socket's whole door: the commands, and the distribution API for whoever may open the socket.

`cacheproxy export` and `import` are clients of it. They pull and push as all others do, so that fills,
settings, quotas and whatever else goes with a pull or a push are theirs, too; only who they are is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cacheproxy.api.caller import Caller
from cacheproxy.core.access import Access
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal, Right, Rule, Rules
from cacheproxy.edge.message import Application, Peer, Ready, Request, Response

NAME = "operator"
"""In what is recorded of who did it. No account has it: theirs have "user:" before them."""

API = "/v2/"


class Operators:
    """Who asks at the admin socket (admission.Admission): one principal, with all rights everywhere."""

    def __init__(self) -> None:
        everything = Rules([Rule(frozenset({NAME}), frozenset(Right), Patterns(("**",)))])
        self._caller = Caller(Principal(NAME), 0, Access([]), everything)

    def known(self, headers: Mapping[str, str], peer: Peer) -> Caller:
        return self._caller

    async def identify(self, request: Request) -> Caller:
        return self._caller

    def admits(self, request: Request, caller: Caller, right: Right, repository: str) -> bool:
        return caller.may(right, repository)

    def refusal(
        self, request: Request, caller: Caller, right: Right | None, repository: str | None
    ) -> OCIError:
        return OCIError("DENIED", f"nobody may {right} in {repository} here")

    def challenges(self, request: Request) -> bool:
        return False

    def challenge(self, request: Request) -> OCIError:
        return OCIError("UNAUTHORIZED", "nobody logs in here")


class OperatorsDoor:
    """edge.message.Application for the admin socket."""

    def __init__(self, commands: Application, registry: Application) -> None:
        self._commands = commands
        self._registry = registry

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return None

    async def handle(self, request: Request) -> Response:
        if not request.path.startswith(API):
            return await self._commands.handle(request)
        # By no name of ours: an upstream's own host may be called as a command calls its daemon.
        return await self._registry.handle(replace(request, headers={**request.headers, "host": ""}))

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return self._commands.refuse(status, message, request_id)
