"""The operator's listener: /metrics, /livez, /readyz, /startupz. Never the clients' one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping

import trio
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from cacheproxy.edge.message import Peer, Ready, Request, Response

CHECK_LIMIT = 5.0
"""Seconds that one check of readiness may take."""

BELIEVED = 3.0
"""Seconds for which it is that all is well: many probes of a bucket, which costs money, are one question."""

Check = Callable[[], Awaitable[None]]
"""Returns when all is well; raises with the reason when it is not."""


class OperatorDoor:
    """edge.message.Application for the metrics listener.

    Readiness asks for what this daemon needs to serve what it has: an upstream that is down is not among it.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._known: Mapping[str, str] = {}
        self._known_at = -math.inf
        self._asking = trio.Lock()
        self._routes: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/metrics": _metrics,
            "/livez": _alive,
            "/readyz": self._readiness,
            # This door opens when all is built: whoever is answered here knows that the start is over.
            "/startupz": _alive,
        }

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return None

    async def handle(self, request: Request) -> Response:
        route = self._routes.get(request.path)
        if route is None:
            return _text(404, f"nothing here; try {', '.join(self._routes)}")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "only GET and HEAD here")
        return await route(request)

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return _text(status, message)

    async def _readiness(self, request: Request) -> Response:
        problems = await self._problems()
        ready = not any(problems.values())
        if ready and "verbose" not in {part.partition("=")[0] for part in request.query.split("&")}:
            return _text(200, "ok")
        lines = [f"{name}: {problem or 'ok'}" for name, problem in problems.items()]
        return _text(200 if ready else 503, "\n".join(lines))

    async def _problems(self) -> Mapping[str, str]:
        """By check; "": there is none."""
        arrived = trio.current_time()
        async with self._asking:
            # What is wrong is told to those who waited for it, and asked anew for the next one.
            believed = 0.0 if any(self._known.values()) else BELIEVED
            if self._known_at + believed <= arrived:
                self._known = await _answers(self._checks)
                self._known_at = trio.current_time()
            return self._known


async def _answers(checks: Mapping[str, Check]) -> Mapping[str, str]:
    """All at once: together they take no longer than one may."""
    answers = dict.fromkeys(checks, "")

    async def ask(name: str) -> None:
        answers[name] = await _problem(checks[name])

    async with trio.open_nursery() as nursery:
        for name in checks:
            nursery.start_soon(ask, name)
    return answers


async def _problem(check: Check) -> str:
    with trio.move_on_after(CHECK_LIMIT):
        try:
            await check()
        except Exception as error:  # noqa: BLE001 - whatever is wrong is the answer
            return f"{type(error).__name__}: {error}"
        return ""
    return f"no answer within {CHECK_LIMIT:g} s"


async def _metrics(request: Request) -> Response:
    """The older format has no room for exemplars: the id of a trace beside what took so long."""
    form = CONTENT_TYPE_LATEST
    generate: Callable[..., bytes] = generate_latest
    if "application/openmetrics-text" in request.headers.get("accept", ""):
        form, generate = openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest
    return Response(200, [("Content-Type", form)], await trio.to_thread.run_sync(generate, REGISTRY))


async def _alive(_: Request) -> Response:
    return _text(200, "ok")


def _text(status: int, text: str) -> Response:
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], text.encode() + b"\n")
