"""What an answer that is not the one we wanted means."""

from __future__ import annotations

import httpx
import msgspec
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.body import Chunks, check_identity, read_whole
from cacheproxy.upstream.exchange import is_down, retry_after

LARGEST_REASON = 4 << 10
"""Bytes of an error body that are read, and how long they may take: a reason is nice to have."""
REASON_SECONDS = 2.0

LONGEST_REASON = 200
"""Characters of it that are passed on."""

_CAUSES = {
    401: Cause.AUTH,
    402: Cause.AUTH,
    403: Cause.AUTH,
    404: Cause.MISSING,
    408: Cause.TIMEOUT,
    410: Cause.MISSING,
    429: Cause.THROTTLED,
}


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    """distribution-spec, "Error Codes"."""

    errors: list[_Error] = []


def cause_of_status(status: int, *, foreign: bool = False) -> Cause:
    """The cause that a status which is no success stands for.

    `foreign`: an object store's, after a redirect. What it refuses says nothing of our rights (a signature
    expired on the way); what it has not got, the registry has lost.
    """
    if is_down(status) or (foreign and status in {401, 402, 403}):
        return Cause.SERVER
    return _CAUSES.get(status, Cause.PROTOCOL)


async def refusal(response: httpx.Response, host: str, upstream: str, *, foreign: bool) -> UpstreamError:
    """The answer as an error, with the reason that the registry gives in its body."""
    status = response.status_code
    reason = "" if foreign else await _reason(response, host, upstream)
    who = f"{host} " if foreign else ""
    return UpstreamError(
        cause_of_status(status, foreign=foreign),
        f"{who}answered {status}{': ' if reason else ''}{reason}",
        upstream,
        status=status,
        retry_after=retry_after(response),
    )


async def _reason(response: httpx.Response, host: str, upstream: str) -> str:
    with trio.move_on_after(REASON_SECONDS):
        chunks = Chunks(response, host, upstream, REASON_SECONDS, rate=0)
        try:
            check_identity(response, upstream)
            found = msgspec.json.decode(
                await read_whole(chunks, LARGEST_REASON, upstream), type=_Errors
            ).errors
        except (UpstreamError, msgspec.DecodeError, RecursionError):
            return ""
        finally:
            await chunks.aclose()
        return "; ".join(_printable(f"{error.code}: {error.message}") for error in found)[:LONGEST_REASON]
    return ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
