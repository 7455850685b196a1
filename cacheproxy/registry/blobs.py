"""Pulling blobs: from the store, from a running fill, or by starting one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial as bind

import structlog
import trio

from cacheproxy.core.blob import BlobView
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.routing import Target
from cacheproxy.registry.fills import Fills
from cacheproxy.registry.flights import Flights
from cacheproxy.registry.origin import Missing, Origin
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.recency import Recency
from cacheproxy.registry.standby import Standby, StoreFailure
from cacheproxy.registry.transfer import Source
from cacheproxy.store.claims import Claims
from cacheproxy.store.content import Content
from cacheproxy.store.errors import (
    BlobMissing,
    Conflict,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnreachable,
)
from cacheproxy.store.partial import Partial
from cacheproxy.store.records import Records
from cacheproxy.store.rows import BlobRow

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Located:
    """A blob that a repository has: how long it is, and where its bytes are, if they are here."""

    size: int
    row: BlobRow | None
    outcome: str


MOST_PROVEN = 65536
"""Blobs that are remembered to be an upstream repository's by its own word: 10 MiB of memory at most."""

Address = Callable[[str, int], Awaitable[str]]
"""Where clients may fetch the bytes at a location, of so many, themselves. Raises BlobMissing, OSError."""


class Blobs:
    def __init__(
        self,
        records: Records,
        content: Content,
        missing: Missing,
        flights: Flights[int],
        fills: Fills,
        quarantine: Quarantine,
        recency: Recency,
        origins: Mapping[str, Origin],
        clock: Callable[[], float],
        address: Address | None = None,
        claims: Claims | None = None,
    ) -> None:
        """`claims`: blobs that not everybody may read; None: there are none."""
        self._records = records
        self._content = content
        self._missing = missing
        self._flights = flights
        self._fills = fills
        self._quarantine = quarantine
        self._recency = recency
        self._origins = origins
        self._clock = clock
        self._address = address
        self._claims = claims
        self._proven: OrderedDict[tuple[str, Digest], None] = OrderedDict()
        """Repositories whose upstream said itself that they have such a blob."""

    async def locate(self, target: Target, digest: Digest) -> Located:
        """Find the blob in the repository; asks the upstream when no manifest that is here names it.

        Starts no fill: this alone answers HEAD. Raises UpstreamError.
        """
        row = await self._records.blob(target.repository, digest)
        if row is not None and not await self._is_claim(target, digest):
            return Located(row.size, row, "hit")
        size, ours = await self._flights.share((target.repository, digest), bind(self._prove, target, digest))
        row = await self._records.blob(target.repository, digest)
        return Located(size, row, "miss" if ours else "coalesced")

    async def named(self, target: Target, digest: Digest) -> bool:
        """Whether the repository is known to have it; nobody is asked."""
        return await self._records.blob(target.repository, digest) is not None

    async def open(self, target: Target, digest: Digest) -> tuple[BlobView, str]:
        """A view of the blob, and the outcome. Raises UpstreamError; the view raises what comes later."""
        view, outcome = await self._open(target, digest)
        return self._recency.reading(view), outcome

    async def address(self, digest: Digest, found: Located) -> str | None:
        """Where the client may fetch a stored blob itself, a secret; None: it has to come from us."""
        if self._address is None or found.row is None or found.row.generation == 0:
            return None
        try:
            address = await self._address(found.row.location, found.size)
        except (BlobMissing, StoreUnreachable) as error:
            log.warning("nobody redirected to the store", digest=digest, error=str(error))
            return None  # opening the blob finds the same, and another way
        self._recency.read(digest)
        return address

    async def _open(self, target: Target, digest: Digest) -> tuple[BlobView, str]:
        found = await self.locate(target, digest)
        source = Source(self._origins[target.upstream].registry, target.remote)
        if found.row is not None and found.row.generation > 0:
            try:
                stored = self._content.open(digest, found.row.location, found.size)
                return Standby(stored, bind(self._otherwise, found.row, found.size, source)), "hit"
            except BlobMissing as error:
                await self._quarantine.put(found.row, error)
            except OSError as error:
                log.warning("store failed, blob comes from the upstream", digest=digest, error=str(error))
                return self._fills.around(digest, found.size, source, "store"), "bypass"
        if found.size == 0 and digest != Digest.of(b"", digest.algorithm):
            what = f"calls {digest} a blob of 0 bytes, which it is not"
            raise UpstreamError(Cause.PROTOCOL, what, target.upstream)
        return await self._fills.join(digest, found.size, source)

    async def _otherwise(self, row: BlobRow, size: int, source: Source, failure: StoreFailure) -> BlobView:
        """A view of a blob that the store was to have, and did not give. Raises UpstreamError."""
        if isinstance(failure, StoreUnreachable):
            log.warning("store failed, blob comes from the upstream", digest=row.digest, error=str(failure))
            return self._fills.around(row.digest, size, source, "store")
        await self._quarantine.put(row, failure)
        view, _ = await self._fills.join(row.digest, size, source)
        return view

    async def _is_claim(self, target: Target, digest: Digest) -> bool:
        """Whether nothing but a manifest says that the repository has a blob that not everybody may read.

        Who knows its digest can write a manifest that names it, here or elsewhere, and would get its bytes.
        """
        if self._claims is None or (target.repository, digest) in self._proven:
            return False
        return target.upstream in self._claims.upstreams or await self._claims.include(digest)

    async def _prove(self, target: Target, digest: Digest) -> int:
        """That this repository has it upstream; makes the link. Returns its size."""
        origin = self._origins[target.upstream]
        self._missing.check("blob", target.repository, digest, target.upstream)
        try:
            size = await origin.registry.head_blob(target.remote, digest)
        except UpstreamError as error:
            if error.cause is Cause.MISSING:
                await self._missing.remember("blob", target.repository, digest, origin.missing_for)
            raise
        if self._claims is not None:
            self._proven[target.repository, digest] = None
            if len(self._proven) > MOST_PROVEN:
                self._proven.popitem(last=False)
        try:
            await self._records.record_link(
                *(target.repository, target.upstream, digest, size, self._clock()),
                settings=origin.born(target.repository),
            )
        except (OSError, StoreError) as error:
            log.warning("link not kept", repository=target.repository, digest=digest, error=str(error))
        return size


class DiskShelf:
    """The store as fills see it: a file to go on from, and a place to keep it."""

    def __init__(self, content: Content, records: Records, clock: Callable[[], float]) -> None:
        self._content = content
        self._records = records
        self._clock = clock

    def partial(self, digest: Digest, size: int) -> Partial:
        return self._content.partial(digest, size)

    async def keep(self, partial: Partial) -> bool:
        location, generation = await trio.to_thread.run_sync(self._content.commit, partial)
        try:
            lost = await self._records.record_blob(
                partial.digest, partial.size, location, generation, self._clock()
            )
        except (StoreFull, StoreBusy, Conflict):  # no row was written, and a file without one is nobody's
            await trio.to_thread.run_sync(self._content.remove, location)
            raise
        if lost is not None:
            try:
                await trio.to_thread.run_sync(self._content.remove, lost)
            except OSError as error:  # the blob is kept all the same
                log.warning("second copy not removed", location=lost, error=str(error))
        return lost is None
