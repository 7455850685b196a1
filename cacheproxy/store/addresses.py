"""Presigned addresses of stored blobs: where a client may fetch one itself, for a short time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial as bind
from typing import NamedTuple

import trio

from cacheproxy.store.bucket import Bucket
from cacheproxy.store.errors import BlobMissing

GOOD_FOR = 300.0
"""Seconds. The signature is looked at when a transfer begins, and clients follow a redirect at once; a
download that is resumed comes through us again. The rest is for clocks that differ."""

HANDED_OUT = GOOD_FOR / 2
"""Seconds for which all who ask get the same address: each gets one that is good for as long again."""

KEPT = 4096
"""Addresses kept. A registry's layers that are asked for within a few minutes are not so many."""

THREADS = 8


class _Signed(NamedTuple):
    url: str
    until: float


class Addresses:
    def __init__(self, bucket: Bucket, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = bucket
        self._clock = clock
        self._signed: dict[tuple[str, int], _Signed] = {}
        self._threads = trio.CapacityLimiter(THREADS)

    async def get(self, location: str, size: int) -> str:
        """A secret for as long as it is good: never to be logged.

        Raises BlobMissing when no object of that size is there, for the client would only hear of a 404;
        StoreUnreachable.
        """
        signed = self._signed.get((location, size))
        if signed is None or signed.until <= self._clock():
            until = self._clock() + HANDED_OUT
            sign = bind(self._sign, location, size)
            signed = _Signed(await trio.to_thread.run_sync(sign, limiter=self._threads), until)
            if len(self._signed) >= KEPT:
                self._signed.clear()
            self._signed[location, size] = signed
        return signed.url

    def _sign(self, location: str, size: int) -> str:
        found = self._bucket.size(location)
        if found != size:
            raise BlobMissing(f"{location} is not an object of {size} bytes, but has {found}")
        return self._bucket.address(location, GOOD_FOR)
