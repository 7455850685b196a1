"""Images that are never evicted."""

from __future__ import annotations

from dataclasses import dataclass

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.routing import Target
from cacheproxy.store.records import Records


@dataclass(frozen=True, slots=True)
class Pin:
    repository: str
    reference: str
    """A tag, whatever it means at the time, or a digest."""


class Pins:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def all(self) -> list[Pin]:
        return [Pin(*row) for row in await self._records.pins()]

    async def pin(self, target: Target, reference: Digest | str) -> Pin:
        """Raises OCIError MANIFEST_UNKNOWN (404) for what is not here: a pin fetches nothing."""
        if not await self._here(target, reference):
            what = f"{reference} of {target.repository} is not here; prefetch it first"
            raise OCIError("MANIFEST_UNKNOWN", what)
        await self._records.pin(target.repository, reference)
        return Pin(target.repository, reference)

    async def unpin(self, target: Target, reference: Digest | str) -> Pin:
        """Raises OCIError MANIFEST_UNKNOWN (404) when it was not pinned."""
        if not await self._records.unpin(target.repository, reference):
            raise OCIError("MANIFEST_UNKNOWN", f"{reference} of {target.repository} is not pinned")
        return Pin(target.repository, reference)

    async def _here(self, target: Target, reference: Digest | str) -> bool:
        if isinstance(reference, Digest):
            return await self._records.image(target.repository, reference) is not None
        return await self._records.tag(target.repository, reference) is not None
