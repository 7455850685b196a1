from __future__ import annotations

import pytest
import trio

from cacheproxy.core.blob import Span
from cacheproxy.core.digest import Digest
from cacheproxy.registry.standby import Standby, StoreFailure
from cacheproxy.store.errors import BlobMissing, StoreUnreachable

DATA = b"0123456789"
DIGEST = Digest.of(DATA)
WHOLE = Span(0, len(DATA), bounded=False)


class Bytes:
    """Gives four bytes at a time, until it fails."""

    def __init__(self, fails_at: int = len(DATA), failure: Exception | None = None) -> None:
        self.digest = DIGEST
        self.size = len(DATA)
        self.closed = 0
        self._fails_at = fails_at
        self._failure = failure

    async def available(self, offset: int, span: Span) -> int:
        await trio.lowlevel.checkpoint()
        if offset >= self._fails_at and self._failure is not None:
            raise self._failure
        return min(4, span.stop - offset)

    def fileno(self) -> int | None:
        return None

    async def read(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return DATA[offset : offset + count]

    def close(self) -> None:
        self.closed += 1


class Otherwise:
    def __init__(self) -> None:
        self.asked: list[StoreFailure] = []
        self.view = Bytes()

    async def __call__(self, failure: StoreFailure) -> Bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(failure)
        return self.view


async def read(view: Standby) -> bytes:
    got = b""
    while len(got) < len(DATA):
        got += await view.read(len(got), await view.available(len(got), WHOLE))
    return got


async def test_what_is_stored_is_read_from_there() -> None:
    stored, otherwise = Bytes(), Otherwise()
    view = Standby(stored, otherwise)
    assert await read(view) == DATA
    view.close()
    assert (otherwise.asked, stored.closed, otherwise.view.closed) == ([], 1, 0)


@pytest.mark.parametrize("at", [0, 4, 8])
@pytest.mark.parametrize("failure", [BlobMissing("gone"), StoreUnreachable("down")])
async def test_a_store_that_fails_is_left_where_it_failed(at: int, failure: StoreFailure) -> None:
    stored, otherwise = Bytes(at, failure), Otherwise()
    view = Standby(stored, otherwise)
    assert await read(view) == DATA
    view.close()
    assert (otherwise.asked, stored.closed, otherwise.view.closed) == ([failure], 1, 1)


async def test_another_failure_is_the_readers() -> None:
    view = Standby(Bytes(0, ZeroDivisionError()), Otherwise())
    with pytest.raises(ZeroDivisionError):
        await read(view)
