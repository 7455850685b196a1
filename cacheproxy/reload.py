"""A changed configuration in a running daemon: taken up whole, or refused whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import structlog
import trio

from cacheproxy import request_log, systemd
from cacheproxy.config import Config, ConfigError, load
from cacheproxy.config.changes import Change, changes, feasible
from cacheproxy.config.files import dotted
from cacheproxy.config.sections import Log
from cacheproxy.edge.message import Application, Exchange, Peer, Ready, Request, Response
from cacheproxy.groups import leaves
from cacheproxy.registry import sharing
from cacheproxy.store.errors import StoreError
from cacheproxy.trial import tried
from cacheproxy.wiring import CannotStart

log = structlog.get_logger()


class Current:
    """The door that is open now (edge.message.Application). A request stays with the one it came in by."""

    def __init__(self, door: Application) -> None:
        self.door = door

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return self.door.immediate(method, target, headers, peer)

    async def handle(self, request: Request) -> Response:
        return await self.door.handle(request)

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return self.door.refuse(status, message, request_id)


class Previews(Current):
    """A door of commands that also says what SIGHUP would do now."""

    def __init__(self, door: Application, preview: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(door)
        self._preview = preview

    async def handle(self, request: Request) -> Response:
        if (request.method, request.path) != ("GET", "/reload"):
            return await super().handle(request)
        said = json.dumps(await self._preview()).encode()
        return Response(200, [("Content-Type", "application/json")], said)


class Requests:
    """The log of requests, as it is configured now."""

    def __init__(self, settings: Log, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._writing = trio.CancelScope()
        self._write = request_log.unlogged
        self.configure(settings)

    def __call__(self, exchange: Exchange) -> None:
        exchange.shared = sharing.take()
        self._write(exchange)

    def configure(self, settings: Log) -> None:
        """What waits to be written still is, as it was going to be."""
        self._writing.cancel()
        self._writing = trio.CancelScope()
        written = request_log.request_log(settings)
        self._write = written or request_log.unlogged
        if written is not None:
            self._nursery.start_soon(_within, self._writing, written.run)


async def _within(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()


Apply = Callable[[Config], Awaitable[None]]
"""Puts a configuration in force at once, with no request between two of its parts. Raises CannotStart (in a
group), StoreError and OSError before anything has changed.
"""


class Reload:
    def __init__(self, config: Config, apply: Apply, look: Apply) -> None:
        """`look` raises as `apply` does for what only a running daemon knows, and changes nothing."""
        self._config = config
        """What is in force."""
        self._apply = apply
        self._look = look

    async def run(self, hangups: AsyncIterator[int], status: str) -> None:
        """Read the file again at each SIGHUP. `status` is what the service manager is told afterwards."""
        async for _ in hangups:
            systemd.reloading()
            problems = await self._reload()
            if problems:
                for problem in problems:
                    log.error("configuration refused", problem=problem)
                log.error("the configuration from before stays", problems=len(problems))
                systemd.ready(f"{status}; the configuration was refused, that from before stays")
            else:
                systemd.ready(status)

    async def preview(self) -> Any:
        """What `run` would find in the file, and do."""
        said: dict[str, Any] = {"file": str(self._config.file or ""), "changes": [], "warnings": []}
        try:
            written = await trio.to_thread.run_sync(load, self._config.file)
        except ConfigError as error:
            return {**said, "problems": [str(problem) for problem in error.problems]}
        found = [{"text": str(change), "live": change.live} for change in changes(self._config, written)]
        config = feasible(self._config, written)
        told = await tried(config)
        try:
            await self._look(config)
        except (CannotStart, StoreError) as error:
            told.problems.append(str(error))
        return {**said, "changes": found, **told._asdict()}

    async def _reload(self) -> list[str]:
        """What is wrong; nothing: it is in force."""
        failures: list[str] = []
        try:
            written = await trio.to_thread.run_sync(load, self._config.file)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        found = changes(self._config, written)
        config = feasible(self._config, written)
        try:
            await self._apply(config)
        except* (CannotStart, StoreError, OSError) as group:  # a database that is away, too
            failures += map(str, leaves(group))
        if failures:
            return failures
        self._config = config
        log.info("configuration reloaded", changed=_names(change for change in found if change.live))
        held = _names(change for change in found if not change.live)
        if held:
            log.warning("changes that take a restart are not in force", keys=held)
        return []


def _names(found: Iterator[Change]) -> str:
    """The keys; of an upstream, only that it changed."""
    return " ".join(dict.fromkeys(_name(change) for change in found))


def _name(change: Change) -> str:
    return dotted(change.key[:2]) if change.key[0] == "upstream" else change.name
