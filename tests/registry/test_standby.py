from __future__ import annotations

import errno

import pytest
import trio

from cacheproxy.core.blob import BlobBroken, Span
from cacheproxy.core.digest import Digest
from cacheproxy.registry.standby import Standby, StoreFailure
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreUnreachable

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

    def failed(self, error: Exception) -> bool:
        return False

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


@pytest.mark.parametrize(
    ("error", "meaning", "found"),
    [
        (OSError(errno.EIO, "Input/output error"), BlobDamaged, "unreadable"),
        (OSError(errno.ENODATA, "No data available"), BlobDamaged, "unreadable"),
        (BlobBroken("the file ends at 4"), BlobDamaged, "truncated"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), StoreUnreachable, None),
    ],
)
async def test_what_the_sender_could_not_read_is_had_otherwise(
    error: Exception, meaning: type, found: str | None
) -> None:
    stored, otherwise = Bytes(), Otherwise()
    view = Standby(stored, otherwise)
    got = bytes(await view.read(0, await view.available(0, WHOLE)))
    assert view.failed(error)
    while len(got) < len(DATA):
        got += await view.read(len(got), await view.available(len(got), WHOLE))
    assert got == DATA
    (failure,) = otherwise.asked
    assert type(failure) is meaning
    assert getattr(failure, "found", None) == found
    assert stored.closed == 1


async def test_there_is_one_other_way() -> None:
    view = Standby(Bytes(), Otherwise())
    assert view.failed(BlobBroken("ends"))
    await view.available(0, WHOLE)
    assert not view.failed(BlobBroken("ends again"))
