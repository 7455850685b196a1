"""One turn of the conversation: a request, answered once and logged once, whatever happens.

`Application.immediate` may have the answer ready; else `Application.handle` makes one. Whatever goes wrong
after the status line was handed over ends in a reset, never in a body that looks whole.
"""

from __future__ import annotations

import time

import structlog
import trio

from cacheproxy.edge import body, head
from cacheproxy.edge.body import SourceFailed
from cacheproxy.edge.message import (
    BlobBody,
    BodyBroken,
    BodyTooLarge,
    Exchange,
    Ready,
    Request,
    Response,
    no_bytes,
)
from cacheproxy.edge.shared import Edge
from cacheproxy.edge.slowpath import RequestBody
from cacheproxy.edge.wire import ClientGone, Verdict, Wire

log = structlog.get_logger(__name__)

UNREAD = 64 * 1024
"""Bytes of a body that nobody wanted, worth reading to keep the connection."""
GONE = 499
"""For the log only, as nginx writes it: the client had left before there was a status line."""

_CUTS = {Verdict.GONE: "client", Verdict.SLOW: "slow"}


async def no_body(_: int) -> bytes:
    return b""


class Turn:
    """`exchange` says what was asked and collects what came of it; `begun` is its start in trio's time."""

    __slots__ = ("_begun", "_edge", "_exchange", "_keep", "_unread", "_wire")

    def __init__(
        self, edge: Edge, wire: Wire, exchange: Exchange, begun: float, keep: bool, unread: RequestBody | None
    ) -> None:
        self._edge = edge
        self._wire = wire
        self._exchange = exchange
        self._begun = begun
        self._keep = keep
        self._unread = unread

    async def take(self, headers: dict[str, str]) -> bool:
        """Whether the connection goes on. Raises ClientGone, SourceFailed: then it must not."""
        exchange, wire = self._exchange, self._wire
        wire.begin_turn()
        try:
            ready = None
            if self._unread is None or self._unread.finished:
                ready = self._edge.application.immediate(
                    exchange.method, exchange.target, headers, exchange.peer
                )
            if ready is not None:
                await self._send_ready(ready)
            else:
                read, receive = (
                    (no_body, no_bytes) if self._unread is None else (self._unread.read, self._unread.receive)
                )
                await self._answer(
                    Request(
                        exchange.method, exchange.target, headers, exchange.peer, exchange.id, read, receive
                    )
                )
        except BaseException as error:
            exchange.aborted = self._why(error)
            wire.reset = True
            raise
        finally:
            self._record()
        return self._keep

    def _record(self) -> None:
        exchange, wire = self._exchange, self._wire
        exchange.seconds = trio.current_time() - self._begun
        if wire.first_sent is not None:
            exchange.first_byte = wire.first_sent - self._begun
            exchange.sent = wire.body_sent
        else:
            exchange.status = GONE
        self._edge.log(exchange)

    def _why(self, error: BaseException) -> str:
        """In the log's words, what cut the answer."""
        if isinstance(error, ClientGone):
            return "client"
        if isinstance(error, Exception):
            return "source"
        return _CUTS.get(self._wire.verdict, "drain") if self._wire.verdict else "drain"

    def _ending(self) -> bytes:
        self._keep = self._keep and not self._edge.draining
        return self._edge.ending.lines(time.time(), close=not self._keep)

    async def _send_ready(self, ready: Ready) -> None:
        exchange = self._exchange
        exchange.status, exchange.outcome, exchange.upstream = ready.status, ready.outcome, ready.upstream
        start = ready.head + self._ending()
        self._wire.begin_answer(len(start))
        await self._wire.send(start if exchange.method == "HEAD" else start + ready.body)

    async def _answer(self, request: Request) -> None:
        self._wire.wait()
        response = await self._handle(request)
        try:
            await self._send(response)
        except (SourceFailed, ValueError) as error:
            log.warning("answer failed", request=request.id, target=request.target, error=repr(error))
            if self._wire.first_sent is not None:
                raise
            status = 502 if isinstance(error, SourceFailed) else 500
            await self._send(
                self._refusal(request, status, "the answer cannot be sent; the log has the reason")
            )
        finally:
            if isinstance(response.body, BlobBody):
                response.body.view.close()

    async def _handle(self, request: Request) -> Response:
        try:
            return await self._edge.application.handle(request)
        except BodyTooLarge:
            return self._refusal(request, 413, "the request's body is too large")
        except BodyBroken as error:
            return self._refusal(request, 400, str(error))
        except Exception:
            log.exception("request failed", request=request.id, target=request.target)
            return self._refusal(request, 500, "the request failed; the log has the reason")

    def _refusal(self, request: Request, status: int, message: str) -> Response:
        response = self._edge.application.refuse(status, message, request.id)
        response.close = True
        return response

    async def _send(self, response: Response) -> None:
        """Raises ValueError when nothing was sent, because a header cannot be."""
        exchange, content = self._exchange, response.body
        exchange.status, exchange.outcome, exchange.upstream = (
            response.status,
            response.outcome,
            response.upstream,
        )
        silent = exchange.method == "HEAD" or head.bodiless(response.status)
        length = content.length if isinstance(content, BlobBody) else len(content)
        if silent and response.length is not None:
            length = response.length
        if response.close or (self._unread is not None and not self._unread.reusable(UNREAD)):
            self._keep = False
        start = head.render(response.status, response.headers, length) + self._ending()
        self._wire.begin_answer(len(start))
        if silent:
            await self._wire.send(start)
        elif isinstance(content, BlobBody):
            await body.send(self._wire, start, content)
        else:
            await self._wire.send(start + content)
