"""How an upstream fails, as values, and what a client hears of it.

UpstreamError
  raised by `upstream/` for whatever goes wrong outside; carries the cause, which stale-if-error rules, the
  circuit breaker and the answer to the client all read
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import ceil

from cacheproxy.core.errors import OCIError
from cacheproxy.core.routing import Via


class Cause(StrEnum):
    """The values are the words of the configuration (`stale_if_error`) and of the answer's `detail`."""

    THROTTLED = "429"
    SERVER = "5xx"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    AUTH = "auth"
    """401 or 403, or credentials that could not be had."""
    MISSING = "404"
    PROTOCOL = "protocol"
    """It lies about length, digest or encoding, loops redirects, or does not speak HTTP."""
    GATE = "gate"
    """Our own policy refused an address, a redirect or a token realm."""
    BREAKER = "open"
    """Not asked: it failed too often just now."""


class UpstreamError(Exception):
    """One request to an upstream that brought nothing.

    `message` goes on from the upstream's name ("answered 503", "cannot be resolved"); it reaches clients, so
    it holds no secret. `upstream` is the canonical prefix, `retry_after` seconds, `because` the cause that
    opened the breaker.
    """

    def __init__(
        self,
        cause: Cause,
        message: str,
        upstream: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        because: Cause | None = None,
    ) -> None:
        super().__init__(f"{upstream}: {message} ({cause})")
        self.cause = cause
        self.message = message
        self.upstream = upstream
        self.status = status
        self.retry_after = retry_after
        self.because = because

    @property
    def root(self) -> Cause:
        """What is wrong outside: for an open breaker, what opened it."""
        return self.because or self.cause


ANSWERS: Mapping[Cause, tuple[str, int]] = {
    Cause.SERVER: ("UNAVAILABLE", 502),
    Cause.PROTOCOL: ("UNAVAILABLE", 502),
    Cause.GATE: ("UNAVAILABLE", 502),
    Cause.TLS: ("UNAVAILABLE", 502),
    Cause.DNS: ("UNAVAILABLE", 503),
    Cause.CONNECT: ("UNAVAILABLE", 503),
    Cause.BREAKER: ("UNAVAILABLE", 503),
    Cause.TIMEOUT: ("UNAVAILABLE", 504),
    # Not 401: a client would offer us credentials that are meant for the upstream.
    Cause.AUTH: ("DENIED", 403),
}

RETRY_AFTER: Mapping[Cause, int] = {Cause.THROTTLED: 60, Cause.BREAKER: 10}
"""Seconds, where the upstream named none: the minute most count by, and the time a breaker stays open."""

_LONGEST_RETRY = 86400
"""Seconds. An upstream may say anything; nobody waits longer than a day."""


def to_client(error: UpstreamError, via: Via, missing_code: str = "MANIFEST_UNKNOWN") -> OCIError:
    """The answer for a request that the upstream's failure ended. `missing_code` is what a 404 means here."""
    code, status = _answer(error.cause, via, missing_code)
    return OCIError(
        code,
        f"upstream {error.upstream}: {error.message}",
        status=status,
        detail={
            "upstream": error.upstream,
            "cause": error.cause,
            "status": error.status,
            "reason": error.message,
            **({"because": error.because} if error.because else {}),
        },
        headers=_retry_after(error),
    )


def _answer(cause: Cause, via: Via, missing_code: str) -> tuple[str, int]:
    if cause is Cause.MISSING:
        return missing_code, 404
    if cause is Cause.THROTTLED:
        # containerd asks again at once, five times, on a 429; on a 503 it goes on to its next host.
        return ("TOOMANYREQUESTS", 429) if via in (Via.REGISTRY, Via.PREFIX) else ("UNAVAILABLE", 503)
    return ANSWERS[cause]


def _retry_after(error: UpstreamError) -> tuple[tuple[str, str], ...]:
    """Whole seconds: some clients read nothing else."""
    if error.cause not in RETRY_AFTER:
        return ()
    seconds = RETRY_AFTER[error.cause] if error.retry_after is None else error.retry_after
    return (("Retry-After", str(ceil(min(max(seconds, 1), _LONGEST_RETRY)))),)
