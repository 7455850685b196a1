"""What mends a finding, where that can do no harm (core/invariants.Remedy)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.invariants import Finding, Remedy
from cacheproxy.store.listing import Listing
from cacheproxy.store.records import Records


async def mend(finding: Finding, records: Records, listing: Listing) -> bool:
    """False: nothing to be done, or not by us. Raises OSError, StoreError."""
    if finding.remedy is None:
        return False
    return await _REMEDIES[finding.remedy](finding, records, listing)


async def _forget(finding: Finding, records: Records, listing: Listing) -> bool:
    """The next pull brings the bytes; what is left of the old ones is an orphan."""
    return await records.forget_bytes(Digest.parse(finding.where), finding.generation)


async def _remove(finding: Finding, records: Records, listing: Listing) -> bool:
    return await trio.to_thread.run_sync(listing.remove, finding.where)


async def _empty(finding: Finding, records: Records, listing: Listing) -> bool:
    await _remove(finding, records, listing)
    await records.forget_trash([finding.where])
    return True


_REMEDIES: Mapping[Remedy, Callable[[Finding, Records, Listing], Awaitable[bool]]] = {
    "forget": _forget,
    "remove": _remove,
    "empty": _empty,
}
