"""One connection: requests in order, from the fast path or the slow one, until either side ends."""

from __future__ import annotations

import time

import structlog
import trio

from cacheproxy.edge import fastpath, forwarded, prefilter, slowpath
from cacheproxy.edge.body import SourceFailed
from cacheproxy.edge.message import Address, Exchange, Peer
from cacheproxy.edge.prefilter import Refusal
from cacheproxy.edge.shared import Edge
from cacheproxy.edge.slowpath import RequestBody
from cacheproxy.edge.turn import GONE, UNREAD, Turn
from cacheproxy.edge.wire import ClientGone, Phase, Verdict, Wire

log = structlog.get_logger(__name__)


class Connection:
    """The conversation over one wire."""

    def __init__(self, edge: Edge, wire: Wire, neighbour: Address | None) -> None:
        """`neighbour`: whose socket it is, a client's or a proxy's; None for a unix socket."""
        self._edge = edge
        self._wire = wire
        self._neighbour = neighbour
        self._peer = Peer(neighbour, wire.scheme)
        self._in_head = False
        """Some bytes of a head are here, and it is not whole."""
        self._started = time.time()
        self._begun = trio.current_time()
        """When the first bytes of this request came, in trio's time."""

    async def run(self) -> None:
        """Raises nothing but cancellation from outside. The caller closes the wire."""
        wire = self._wire
        try:
            with wire.scope:
                if await self._converse():
                    await wire.linger(self._edge.limits.linger)
            if wire.verdict is Verdict.HEADER and self._in_head:
                self._refuse(Refusal(408, "the request's head took too long"), b"")
        # By group: a nursery of the application's may raise a failure together with the cancellation.
        except* (ClientGone, SourceFailed):
            pass  # logged by its turn
        except* Exception:
            wire.reset = True
            log.exception("connection failed")

    async def _converse(self) -> bool:
        """Answer requests. True: the connection ends on our side; False: the client has ended it."""
        wire, data = self._wire, b""
        words = await wire.open(self._edge.limits)
        if words is not None:
            self._refuse(Refusal(400, words), b"")
            return True
        if wire.certificate is not None:
            self._peer = Peer(self._neighbour, wire.scheme, certificate=wire.certificate)
        while True:
            data = data or await wire.recv()
            if not data:
                return False
            self._started, self._begun = time.time(), trio.current_time()
            plain = fastpath.parse(data)
            if plain is not None:
                rest = b"" if await self._take_turn(*plain, keep=True, unread=None) else None
            else:
                rest = await self._serve_slowly(data)
                await trio.lowlevel.checkpoint()
            if rest is None or (not rest and self._edge.draining):
                return True
            if not rest:
                wire.expect(Phase.IDLE, trio.current_time() + self._edge.limits.idle)
            data = rest

    async def _take_turn(
        self, method: str, target: str, headers: dict[str, str], keep: bool, unread: RequestBody | None
    ) -> bool:
        edge = self._edge
        forwards = not forwarded.FIELDS.isdisjoint(headers)
        peer = edge.forwarding.peer(self._neighbour, headers, self._wire.scheme) if forwards else self._peer
        exchange = Exchange(peer, method, target, GONE, 0, self._started, 0.0, None)
        exchange.id = edge.next_id()
        exchange.user_agent = headers.get("user-agent", "")
        return await Turn(edge, self._wire, exchange, self._begun, keep, unread).take(headers)

    async def _serve_slowly(self, data: bytes) -> bytes | None:
        """Serve a request that is not plain: what follows it on the wire. None: the connection ends here."""
        whole = await self._whole_head(data)
        if whole is None:
            return None
        end = whole.find(prefilter.END) + len(prefilter.END)
        parsed = slowpath.parse(whole[:end])
        if isinstance(parsed, Refusal):
            self._refuse(parsed, whole)
            return None
        unread = RequestBody(parsed, self._wire, whole[end:])
        keep = await self._take_turn(parsed.method, parsed.target, parsed.headers, parsed.keep_alive, unread)
        return unread.leftover if keep and await unread.drain(UNREAD) else None

    async def _whole_head(self, data: bytes) -> bytes | None:
        """`data` and what it takes to have a whole head. None: it was refused before, or the client ended."""
        wire = self._wire
        if wire.phase is not Phase.HEADER:
            wire.expect(Phase.HEADER, self._begun + self._edge.limits.header)
        self._in_head = True
        while prefilter.END not in data:
            refusal = prefilter.early(data)
            if refusal is not None:
                self._refuse(refusal, data)
                return None
            more = await wire.recv()
            if not more:
                return None
            data += more
        self._in_head = False
        return data

    def _refuse(self, refusal: Refusal, data: bytes) -> None:
        """The edge's own answer to what it does not take for a request. One attempt: the connection ends."""
        self._in_head = False
        edge, wire = self._edge, self._wire
        method, target = prefilter.request_line(data)
        exchange = Exchange(
            self._peer, method, target, refusal.status, 0, self._started, 0.0, None, id=edge.next_id()
        )
        start, content = edge.refusal(refusal, exchange.id)
        if wire.send_now(start + content):
            exchange.sent = len(content)
            exchange.first_byte = exchange.seconds = trio.current_time() - self._begun
        else:
            exchange.aborted = "client"
        edge.log(exchange)
