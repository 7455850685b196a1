"""The operator's listener: /metrics, /livez, /readyz, /startupz. Never the clients' one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cacheproxy.edge.message import Peer, Ready, Request, Response

CHECK_LIMIT = 5.0
"""Seconds that one check of readiness may take."""

Check = Callable[[], Awaitable[None]]
"""Returns when all is well; raises with the reason when it is not."""


class OperatorDoor:
    """edge.message.Application for the metrics listener.

    Readiness asks for what this daemon needs to serve what it has: an upstream that is down is not among it.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._routes: dict[str, Callable[[], Awaitable[Response]]] = {
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
        return await route()

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return _text(status, message)

    async def _readiness(self) -> Response:
        lines, ready = [], True
        for name, check in self._checks.items():
            problem = await _problem(check)
            ready &= problem is None
            lines.append(f"{name}: {problem or 'ok'}")
        return _text(200 if ready else 503, "\n".join(lines))


async def _problem(check: Check) -> str | None:
    with trio.move_on_after(CHECK_LIMIT):
        try:
            await check()
        except Exception as error:  # noqa: BLE001 - whatever is wrong is the answer
            return f"{type(error).__name__}: {error}"
        return None
    return f"no answer within {CHECK_LIMIT:g} s"


async def _metrics() -> Response:
    return Response(
        200, [("Content-Type", CONTENT_TYPE_LATEST)], await trio.to_thread.run_sync(generate_latest)
    )


async def _alive() -> Response:
    return _text(200, "ok")


def _text(status: int, text: str) -> Response:
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], text.encode() + b"\n")
