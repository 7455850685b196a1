"""Sending a blob: from the page cache to the socket, or through memory where there is no file.

The head leaves with the first bytes of the blob, not before: a 200 whose body never comes is worse for
a client than an error. Once it has left, any failure must end in a connection that is cut.
"""

from __future__ import annotations

import os

import trio

from cacheproxy.core.blob import BlobBroken, BlobView, Span
from cacheproxy.edge.message import BlobBody
from cacheproxy.edge.wire import STEP, Wire

_readers = trio.CapacityLimiter(16)
"""Threads that read ahead for sendfile: a disk's queue depth, not a client's wish."""
_probe = bytearray(1)


class SourceFailed(Exception):
    """The bytes that were promised cannot be had."""


async def send(wire: Wire, head: bytes, body: BlobBody) -> None:
    """Send `head` and all parts. Raises SourceFailed, ClientGone. Does not close the view."""
    if sum(len(part) if isinstance(part, bytes) else part.length for part in body.parts) != body.length:
        raise SourceFailed("the parts of the body do not add up to its length")
    pending = head
    for part in body.parts:
        if isinstance(part, bytes):
            pending += part
        else:
            pending = await _send_span(wire, body.view, part, pending)
    await wire.send(pending)


async def _send_span(wire: Wire, view: BlobView, span: Span, pending: bytes) -> bytes:
    """Send `pending` with the span's first bytes, then the rest. What is pending afterwards."""
    offset = span.start
    while offset < span.stop:
        stop, source = await _available(wire, view, offset, span)
        await wire.send(pending, more=True)
        pending = b""
        if source is None:
            offset = await _send_from_memory(wire, view, offset, stop)
        else:
            offset = await _send_from_file(wire, view, source, offset, stop)
    return pending


async def _available(wire: Wire, view: BlobView, offset: int, span: Span) -> tuple[int, int | None]:
    """Wait for bytes from `offset`: where they stop, and the descriptor that holds them."""
    wire.wait()
    try:
        count = await view.available(offset, span)
        source = view.fileno()
    except Exception as error:
        raise SourceFailed from error
    if count < 1:
        raise SourceFailed(f"no bytes at {offset}")
    return min(offset + count, span.stop), source


async def _send_from_file(wire: Wire, view: BlobView, source: int, offset: int, stop: int) -> int:
    """Where it got to: before `stop` when the file failed, and the view has another way."""
    while offset < stop:
        step = min(wire.step, stop - offset)
        try:
            if not _cached(source, offset, step):
                wire.wait()
                await trio.to_thread.run_sync(os.pread, source, step, offset, limiter=_readers)
            sent = await wire.sendfile(source, offset, step)
            if not sent:
                raise BlobBroken(f"the file ends at {offset}, before {stop}")
        except (OSError, BlobBroken) as error:
            if view.failed(error):
                break
            raise SourceFailed(str(error)) from error
        offset += sent
        if sent == wire.step:
            await trio.lowlevel.checkpoint()  # a fast reader never makes us wait: let the others run
    return offset


async def _send_from_memory(wire: Wire, view: BlobView, offset: int, stop: int) -> int:
    while offset < stop:
        wire.wait()
        try:
            data = await view.read(offset, min(STEP, stop - offset))
        except Exception as error:
            raise SourceFailed from error
        if not 0 < len(data) <= stop - offset:
            raise SourceFailed(f"{len(data)} bytes read at {offset}")
        await wire.send(data)
        offset += len(data)
        await trio.lowlevel.checkpoint()
    return offset


def _cached(source: int, offset: int, count: int) -> bool:
    """Whether sendfile would not wait for the disk, and the whole loop with it. Under 2 µs.

    Both ends of the step stand for what is between: pages come and go in runs.
    """
    try:
        for at in (offset, offset + count - 1):
            os.preadv(source, (_probe,), at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # tmpfs and some network file systems cannot tell
    return True
