"""What a person does about events on their way, at the admin socket: see, replay, drop, try again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from cacheproxy.core.errors import OCIError
from cacheproxy.core.query import first, parse_query
from cacheproxy.edge.message import Request
from cacheproxy.registry.sinks import Sinks

BODY_LIMIT = 64 << 10


class Chosen(msgspec.Struct):
    sink: str | None = None
    """None: all."""
    event: str | None = None
    """Its id; None: all."""


class DropWanted(Chosen):
    waiting: bool = False
    """Also what was not given up yet."""


class SinkNamed(msgspec.Struct):
    sink: str


Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class EventsDoor:
    """Handlers raise OCIError."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def handlers(self) -> Mapping[tuple[str, str], Callable[[Request], Awaitable[Any]]]:
        return {
            ("GET", "/webhooks"): self._conditions,
            ("GET", "/events"): self._list,
            ("POST", "/events/replay"): self._replay,
            ("POST", "/events/drop"): self._drop,
            ("POST", "/events/resume"): self._resume,
        }

    async def _conditions(self, request: Request) -> Any:
        return await self._sinks.conditions()

    async def _list(self, request: Request) -> Any:
        query = parse_query(request.query)
        return await self._sinks.list(first(query, "sink"), dead=first(query, "dead") == "1")

    async def _replay(self, request: Request) -> Any:
        wanted = await _body(request, Chosen)
        return {"events": await self._sinks.replay(wanted.sink, wanted.event)}

    async def _drop(self, request: Request) -> Any:
        wanted = await _body(request, DropWanted)
        return {"events": await self._sinks.drop(wanted.sink, wanted.event, waiting=wanted.waiting)}

    async def _resume(self, request: Request) -> Any:
        self._sinks.resume((await _body(request, SinkNamed)).sink)
        return {}


async def _body(request: Request, kind: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(await request.read_body(BODY_LIMIT), type=kind, strict=True)
    except msgspec.MsgspecError as error:
        raise OCIError("UNSUPPORTED", f"not what is asked for here: {error}", status=400) from error
