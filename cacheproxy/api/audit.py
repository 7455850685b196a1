"""Who was let do what, told to whoever keeps the record: each decision of the doors, where it is made.

A pull that is to be recorded takes the long way, since an answer that is ready is given before anybody knows
the request by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from cacheproxy.api.admission import Admission
from cacheproxy.api.caller import READING, Caller
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Right
from cacheproxy.edge.message import Application, Peer, Ready, Request, Response

LOGIN = "login"
COMMAND = "command"
"""What is decided on, beside the rights in repositories."""


class Decision(NamedTuple):
    request: Request
    actor: str
    """The principal's name; "": who it says it is was not proven."""
    what: str
    """A right, LOGIN or COMMAND."""
    repository: str
    """By canonical name; "": it is about none."""
    allowed: bool
    rule: str
    """Which rule says so, or why none does."""


Record = Callable[[Decision], None]


class Audited:
    """An Admission whose decisions are recorded; `pulls`: also those that let somebody read."""

    def __init__(self, admission: Admission, record: Record, *, pulls: bool) -> None:
        self._admission = admission
        self._record = record
        self._pulls = pulls

    def known(self, headers: Mapping[str, str], peer: Peer) -> Caller | None:
        return None if self._pulls else self._admission.known(headers, peer)

    async def identify(self, request: Request) -> Caller:
        try:
            return await self._admission.identify(request)
        except OCIError as error:
            self._record(Decision(request, "", LOGIN, "", False, error.message))
            raise

    def admits(self, request: Request, caller: Caller, right: Right, repository: str) -> bool:
        allowed = self._admission.admits(request, caller, right, repository)
        if not allowed or self._pulls or right not in READING:
            rule = caller.because(right, repository)
            self._record(Decision(request, caller.name, right, repository, allowed, rule))
        return allowed

    def refusal(
        self, request: Request, caller: Caller, right: Right | None, repository: str | None
    ) -> OCIError:
        return self._admission.refusal(request, caller, right, repository)

    def challenges(self, request: Request) -> bool:
        return self._admission.challenges(request)

    def challenge(self, request: Request) -> OCIError:
        return self._admission.challenge(request)


class Tokens(Protocol):
    async def answer(self, request: Request) -> Response:
        """Raises OCIError."""
        ...


class AuditedTokens:
    """A token server whose refusals are recorded. What a token is used for is decided anew each time."""

    def __init__(self, tokens: Tokens, record: Record) -> None:
        self._tokens = tokens
        self._record = record

    async def answer(self, request: Request) -> Response:
        try:
            return await self._tokens.answer(request)
        except OCIError as error:
            self._record(Decision(request, "", LOGIN, "", False, error.message))
            raise


class AuditedCommands:
    """edge.message.Application of the admin socket: whatever changes something is recorded, by its path."""

    def __init__(self, commands: Application, record: Record) -> None:
        self._commands = commands
        self._record = record

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return self._commands.immediate(method, target, headers, peer)

    async def handle(self, request: Request) -> Response:
        if request.method != "GET":
            said = "whoever may open the admin socket"
            self._record(Decision(request, "operator", COMMAND, "", True, said))
        return await self._commands.handle(request)

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return self._commands.refuse(status, message, request_id)
