"""An upstream's answer to a GET of a blob, after its head."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.ranges import parse_content_range
from cacheproxy.upstream.asking import Answer

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,256}"')
"""RFC 9110 section 8.8.3, without the weak ones: only these say that bytes are the same."""


@dataclass(frozen=True, slots=True)
class BlobStream:
    status: int
    """200 or 206."""
    start: int
    """The offset in the blob of the first byte that `chunks` gives."""
    total: int | None
    """Bytes of the whole blob, as the upstream says; None: it does not say."""
    ranges: bool
    """It does ranges: this is one, or it says so."""
    etag: str | None
    """A strong one, good for If-Range at the same endpoint."""
    endpoint: int
    wanted: Callable[[], bool]
    """Whether others wait in line for the slot that this answer holds."""
    chunks: AsyncIterator[bytes]
    """Raises UpstreamError: TIMEOUT for a stall or a drip, CONNECT for a body that breaks off."""


def range_header(start: int, stop: int | None) -> str | None:
    """For the bytes [start, stop); None: for all of them there is no Range."""
    if start == 0 and stop is None:
        return None
    return f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"


def opened(answer: Answer, endpoint: int, wanted: Callable[[], bool], *, ranged: bool) -> BlobStream:
    """The stream behind the head of a 200 or 206. Raises UpstreamError PROTOCOL for a head without sense."""
    headers = answer.headers
    start, total = (0, answer.length) if answer.status == 200 else _part(answer, ranged=ranged)
    etag = headers.get("etag", "")
    return BlobStream(
        answer.status,
        start,
        total,
        answer.status == 206 or headers.get("accept-ranges", "").strip().lower() == "bytes",
        etag if _STRONG_ETAG.fullmatch(etag) else None,
        endpoint,
        wanted,
        answer.chunks,
    )


def size(answer: Answer) -> int:
    """The blob's, by the head of an answer to GET of its first byte. Raises UpstreamError PROTOCOL."""
    found = parse_content_range(answer.headers.get("content-range", ""))
    total = answer.length if answer.status == 200 else found[2] if found else None
    if answer.status == 416 and answer.headers.get("content-range", "").strip() == "bytes */0":
        total = 0  # the one blob that has no first byte
    if total is None:
        raise UpstreamError(Cause.PROTOCOL, "does not say how large the blob is", answer.upstream)
    return total


def _part(answer: Answer, *, ranged: bool) -> tuple[int, int | None]:
    found = parse_content_range(answer.headers.get("content-range", ""))
    if found is None or not ranged:
        what = "sends a part of a blob " + ("without saying which" if ranged else "that was asked for whole")
        raise UpstreamError(Cause.PROTOCOL, what, answer.upstream, status=206)
    start, stop, total = found
    if answer.length is not None and answer.length != stop - start:
        what = f"sends {answer.length} bytes and calls them {stop - start}"
        raise UpstreamError(Cause.PROTOCOL, what, answer.upstream, status=206)
    return start, total
