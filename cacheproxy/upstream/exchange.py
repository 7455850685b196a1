"""One request to one host: sent, limited, counted, logged, and its failure named.

We talk to the transport itself and not through `httpx.AsyncClient`, which writes every URL to its logger, the
signatures of redirects included, keeps cookies, and decodes bodies.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import structlog
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.trace import Attributes, step
from cacheproxy.upstream import metrics
from cacheproxy.upstream.causes import cause_of
from cacheproxy.upstream.pacing import Lane, Pace, parse_ratelimit, parse_retry_after

log = structlog.get_logger()

CONNECT_SECONDS = 10.0
"""For names, addresses and handshake together: as long as three lost SYNs take (1 + 2 + 4 s)."""

_SAID: dict[Cause, str] = {
    Cause.DNS: "cannot resolve",
    Cause.CONNECT: "cannot reach",
    Cause.TLS: "no TLS with",
    Cause.TIMEOUT: "no answer in time from",
    Cause.GATE: "may not connect to",
    Cause.PROTOCOL: "no HTTP with",
}


@dataclass(frozen=True, slots=True)
class Ask:
    method: str
    url: httpx.URL
    headers: Sequence[tuple[str, str]]
    kind: str
    """manifest, blob, tags, referrers, token, keys."""
    lane: Lane
    content: bytes = b""


class Sender:
    """For all hosts that one upstream leads to."""

    def __init__(self, upstream: str, transport: httpx.AsyncBaseTransport, stall: float) -> None:
        self._upstream = upstream
        self._transport = transport
        self._stall = stall

    async def send(self, ask: Ask, pace: Pace | None, deadline: float) -> httpx.Response:
        """The answer's head, whatever its status; who gets it closes it.

        `pace` is that of the host, None for a stranger's. Waits until `deadline` (trio's clock), and never
        longer than a stall. Raises UpstreamError.
        """
        with step(ask.method, client=True) as span:
            if span is None:
                return await self._send(ask, pace, deadline)
            span.note(self._traced(ask))
            response = await self._send(ask, pace, deadline)
            span.note({"http.response.status_code": response.status_code})
            if _is_news(response.status_code):
                span.fail(str(response.status_code))
            return response

    async def _send(self, ask: Ask, pace: Pace | None, deadline: float) -> httpx.Response:
        probe = pace.enter(ask.lane) if pace is not None else False
        began = trio.current_time()
        try:
            response = await self._head(ask, deadline)
        except UpstreamError as error:
            if pace is not None:
                pace.failed(ask.lane, error.cause, probe=probe)
            self._note_failure(ask, error, trio.current_time() - began)
            raise
        except BaseException:
            if pace is not None:
                pace.left(ask.lane, probe=probe)
            raise
        if pace is not None:
            _tell(pace, ask.lane, response, probe=probe)
        self._note(ask, response, trio.current_time() - began, own=pace is not None)
        return response

    async def _head(self, ask: Ask, deadline: float) -> httpx.Response:
        request = httpx.Request(
            ask.method,
            ask.url,
            headers=list(ask.headers),
            content=ask.content,
            extensions={"timeout": {"connect": CONNECT_SECONDS}},
        )
        began = trio.current_time()
        with trio.CancelScope(deadline=min(deadline, began + self._stall)):
            try:
                return await self._transport.handle_async_request(request)
            except httpx.HTTPError as error:
                raise failure(error, ask.url.host, self._upstream) from error
        waited = trio.current_time() - began
        raise UpstreamError(Cause.TIMEOUT, f"no answer from {ask.url.host} in {waited:.1f} s", self._upstream)

    def _note(self, ask: Ask, response: httpx.Response, seconds: float, *, own: bool) -> None:
        status = response.status_code
        metrics.REQUESTS.labels(self._upstream, ask.kind, _result(status)).inc()
        metrics.FIRST_BYTE.labels(self._upstream).observe(seconds)
        if own and status < 400:
            metrics.LAST_SUCCESS.labels(self._upstream).set(time.time())
        if own:
            self._note_ratelimit(response)
        write = log.warning if _is_news(status) else log.info
        write("upstream request", **self._described(ask, seconds), status=status)

    def _note_failure(self, ask: Ask, error: UpstreamError, seconds: float) -> None:
        metrics.REQUESTS.labels(self._upstream, ask.kind, error.cause.value).inc()
        write = log.warning
        write(
            "upstream request failed",
            **self._described(ask, seconds),
            cause=error.cause,
            reason=error.message,
        )

    def _note_ratelimit(self, response: httpx.Response) -> None:
        rate = parse_ratelimit(response.headers)
        if rate.limit is not None:
            metrics.RATELIMIT_LIMIT.labels(self._upstream).set(rate.limit)
        if rate.remaining is not None:
            metrics.RATELIMIT_REMAINING.labels(self._upstream).set(rate.remaining)

    def _described(self, ask: Ask, seconds: float) -> dict[str, object]:
        return {
            "upstream": self._upstream,
            "method": ask.method,
            "host": ask.url.host,
            "path": _path(ask.url),
            "seconds": round(seconds, 4),
        }

    def _traced(self, ask: Ask) -> Attributes:
        url = ask.url
        return {
            "http.request.method": ask.method,
            "url.full": f"{url.scheme}://{url.netloc.decode('ascii')}{_path(url)}",
            "server.address": url.host,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
            "cacheproxy.upstream": self._upstream,
            "cacheproxy.kind": ask.kind,
        }


def _path(url: httpx.URL) -> str:
    """Without the query: it may be a signature."""
    return url.raw_path.partition(b"?")[0].decode("ascii")


def _is_news(status: int) -> bool:
    """401 is a challenge, 404 an answer."""
    return status >= 500 or status == 429


def failure(error: httpx.HTTPError, host: str, upstream: str) -> UpstreamError:
    """What the transport raised, in our words."""
    cause = cause_of(error)
    return UpstreamError(
        cause, f"{_SAID[cause]} {host}: {str(error)[:200] or type(error).__name__}", upstream
    )


def retry_after(response: httpx.Response) -> float | None:
    return parse_retry_after(response.headers.get("retry-after"), time.time())


def is_down(status: int) -> bool:
    """The host, not the request, is at fault: 501 (and 505) are about the request."""
    return status >= 500 and status not in {501, 505}


def _tell(pace: Pace, lane: Lane, response: httpx.Response, *, probe: bool) -> None:
    """500 is a failure, but no reason to leave the host alone: registries say it of one damaged image, and
    whoever polls that one would keep everybody from all others."""
    if is_down(response.status_code) and response.status_code != 500:
        pace.failed(lane, Cause.SERVER, probe=probe)
    else:
        throttled = response.status_code == 429
        pace.answered(lane, throttled=throttled, retry_after=retry_after(response) if throttled else None)


def _result(status: int) -> str:
    if status == 429:
        return Cause.THROTTLED
    if status == 404:
        return Cause.MISSING
    return f"{status // 100}xx"
