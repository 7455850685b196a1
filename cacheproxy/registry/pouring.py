"""A body into an upload: what comes next is received while the last bytes are written and hashed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

Receive = Callable[[], Awaitable[bytes]]
"""Some bytes of a body; empty at its end. Raises what says that the client is gone."""

BATCH = 1 << 20
"""Bytes that are written and hashed in one go."""


class TooMuch(Exception):
    """More came than there is room for."""


async def pour(
    receive: Receive, write: Callable[[Sequence[bytes]], Awaitable[None]], most: int | None
) -> Exception | None:
    """All of a body, up to `most` bytes. None; or, once what came before it is written, why it broke off.

    Raises what `write` does, and TooMuch.
    """
    broken: Exception | None = None
    failed: Exception | None = None
    batches, received = trio.open_memory_channel[list[bytes]](0)

    async def writing() -> None:
        nonlocal failed
        left = most
        try:
            async for batch in received:
                if left is not None and (left := left - sum(map(len, batch))) < 0:
                    raise TooMuch
                await write(batch)
        except (OSError, TooMuch) as error:
            failed = error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing)
        async with batches:
            try:
                await _pass_on(receive, batches.send)
            except Exception as error:  # noqa: BLE001 - it is given back
                broken = error
    if failed is not None:
        raise failed
    return broken


async def _pass_on(receive: Receive, pass_on: Callable[[list[bytes]], Awaitable[None]]) -> None:
    """Receive all there is, and pass it on by the batch; also what came before it broke off."""
    batch: list[bytes] = []
    size = 0
    try:
        while chunk := await receive():
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH:
                full, batch, size = batch, [], 0
                await pass_on(full)
    finally:
        if batch:
            await pass_on(batch)
