"""Blobs as objects of a bucket: immutable, one key a generation, reached only by names built from a Digest.

    <prefix>/blobs/<algorithm>/<first two of hex>/<hex>.<generation>

What is still arriving is a file on this node (disk.py). Once it is proven it goes up, to a key that nobody
else has: no write needs a condition, which not every store keeps. Then the caller records it. An object
without a row is never served.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial as bind
from pathlib import Path

import trio

from cacheproxy.core.digest import Digest
from cacheproxy.store.bucket import Bucket, Reading
from cacheproxy.store.chunks import ObjectUploads, Sole
from cacheproxy.store.content import UNLIMITED
from cacheproxy.store.disk import DiskContent, Location, Unfinished, digest_at, place
from cacheproxy.store.errors import BlobDamaged, BlobMissing, StoreSuspect
from cacheproxy.store.listing import Objects
from cacheproxy.store.objectblob import ObjectBlob
from cacheproxy.store.partial import Partial
from cacheproxy.store.proven import Proven
from cacheproxy.store.sessions import UploadGone

READ_THREADS = 32
"""Ranged reads at once, for all clients: so many may wait for a slow store, and nothing else does."""

READ_BACK = 1 << 20
"""Bytes read at a time from the file that goes up."""

CHECKED = "cacheproxy-ready"
"""A key that nothing is kept under: that the store says so is an answer."""


class ObjectContent:
    """Everything but `open` and `capacity` blocks, and belongs into a thread."""

    def __init__(
        self,
        bucket: Bucket,
        local: DiskContent,
        nursery: trio.Nursery,
        generation: Callable[[], int] = lambda: secrets.randbits(62) + 1,
    ) -> None:
        """`local` keeps what is arriving; reads run in `nursery`, which ends them."""
        self.root = local.root
        self.bucket = bucket
        self._local = local
        self._nursery = nursery
        self._generation = generation
        self._threads = trio.CapacityLimiter(READ_THREADS)
        self._all_open: set[ObjectBlob] = set()
        self.uploads = ObjectUploads(bucket, local.uploads)

    def open(self, digest: Digest, location: str, size: int) -> ObjectBlob:
        """A view of a stored blob of `size` bytes; the store is asked when its first byte is.

        Raises BlobMissing for a place that is none of the digest's; the view raises it when nothing of that
        size is there.
        """
        if digest_at(location) != digest:
            raise BlobMissing(f"{location!r} is not a place for {digest}")
        if size == 0 and digest != Digest.of(b"", digest.algorithm):  # nothing of it would ever be asked for
            raise BlobMissing(f"{digest} is not the digest of an empty blob")
        get = bind(self._get, location, size)
        return ObjectBlob(digest, size, get, self._nursery, self._threads, self._all_open)

    def partial(self, digest: Digest, size: int) -> Partial:
        """As DiskContent does."""
        return self._local.partial(digest, size)

    def commit(self, proven: Proven) -> Location:
        """Send a proven file up, and hash what is sent once more. Its descriptor stays readable.

        Raises StoreUnreachable; StoreSuspect when the file is no longer what was proven, UploadGone when
        there is none.
        """
        location = place(proven.digest, self._generation())
        if isinstance(proven, Sole):
            self._copy(proven, location)
            return location
        hasher = proven.digest.hasher()

        def chunks() -> Iterator[bytes]:
            offset = 0
            while offset < proven.size:
                chunk = proven.read(offset, min(READ_BACK, proven.size - offset))
                hasher.update(chunk)
                yield chunk
                offset += len(chunk)

        self.bucket.put(location.path, proven.size, chunks())
        if hasher.hexdigest() != proven.digest.hex:
            self.bucket.delete(location.path)
            raise StoreSuspect(0, f"the file of {proven.digest} has changed since it was proven")
        proven.discard()
        return location

    def _copy(self, proven: Sole, location: Location) -> None:
        """What is in the bucket already need not come back to be sent once more."""
        if not self.bucket.copy(proven.key, location.path):
            raise UploadGone(proven.key)
        if self.bucket.size(location.path) != proven.size:
            self.bucket.delete(location.path)
            raise StoreSuspect(0, f"the copy of {proven.key} has not its {proven.size} bytes")

    def remove(self, location: str) -> bool:
        """Delete one generation of a blob, or what was sent of one; False when it was not there.

        Raises StoreUnreachable.
        """
        if self.uploads.remove(location):
            return True
        if digest_at(location) is None or self.bucket.size(location) is None:
            return False
        self.bucket.delete(location)
        return True

    def read_cold(self, location: str, size: int, start: int, stop: int) -> memoryview:
        """The bytes [start, stop) of a stored blob: a request. Raises as reading its view does."""
        return self._read(location, size, start, stop)

    def check(self) -> None:
        """As DiskContent does, and one question to the store. Raises OSError, StoreUnreachable."""
        self._local.check()
        self.bucket.size(CHECKED)

    def confirm(self, digest: Digest, location: str, size: int) -> None:
        """That an object of this size is there: a request. Raises as reading its view does."""
        if digest_at(location) != digest:
            raise BlobMissing(f"{location!r} is not a place for {digest}")
        self._judge(location, size, self.bucket.size(location))

    def files(self, older_than: float, now: float) -> Iterator[tuple[Digest, str]]:
        """(digest, location) of objects that were written more than `older_than` seconds ago, by pages."""
        for found in Objects(self.bucket).stored(""):
            if now - found.written > older_than:
                yield found.digest, found.location

    def set_aside(self, location: str) -> None:
        """Nothing: an object whose row is gone is not served, and its key is nobody else's."""

    def capacity(self) -> tuple[int, int]:
        return UNLIMITED, UNLIMITED

    def partials(self) -> Iterator[Unfinished]:
        return self._local.partials()

    def reap(self, older_than: float, now: float) -> list[Digest]:
        return self._local.reap(older_than, now)

    def _get(self, location: str, size: int, start: int, stop: int) -> Reading:
        reading = self.bucket.open(location, start, stop)
        self._judge(location, size, None if reading is None else reading.total)
        assert reading is not None
        return reading

    def _read(self, location: str, size: int, start: int, stop: int) -> memoryview:
        piece = self.bucket.get(location, start, stop)
        self._judge(location, size, None if piece is None else piece.total)
        assert piece is not None
        if len(piece.data) != stop - start:
            raise BlobDamaged(f"{location} gives {len(piece.data)} of {stop - start} bytes", "truncated")
        return piece.data

    def _judge(self, location: str, size: int, total: int | None) -> None:
        if total is None:
            raise BlobMissing(f"{location} is not in {self.bucket.name}")
        if total != size:
            raise BlobDamaged(f"{location} is not an object of {size} bytes, but has {total}", "truncated")


@asynccontextmanager
async def open_objects(bucket: Bucket, folder: Path) -> AsyncIterator[ObjectContent]:
    """A store over the bucket, with what is arriving in `folder`. Raises OSError, StoreSuspect."""
    local = await trio.to_thread.run_sync(DiskContent, folder)
    async with trio.open_nursery() as reads:
        yield ObjectContent(bucket, local, reads)
        reads.cancel_scope.cancel()
