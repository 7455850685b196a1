"""Files whose rows are gone already: unlinked in small batches, in a thread, and again after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
import trio

from cacheproxy.registry.space import Space
from cacheproxy.store.records import Records

log = structlog.get_logger()

BATCH = 32
"""Files of one hop to a thread and one transaction: tens of milliseconds, then others get their turn."""


class Files(Protocol):
    """What is asked of the content store."""

    def remove(self, location: str) -> bool:
        """Blocking. One generation of a blob; False when it was not there. Raises OSError."""
        ...


class Trash:
    def __init__(self, records: Records, content: Files, space: Space, clock: Callable[[], float]) -> None:
        self._records = records
        self._content = content
        self._space = space
        self._clock = clock
        self._thread = trio.CapacityLimiter(1)
        self._stuck: dict[str, int] = {}
        """Sizes of files that could not be unlinked: they count until they are."""

    async def unlink(self, places: Mapping[str, int]) -> None:
        """Unlink files of so many bytes whose rows are in the trash. What fails stays there, and counted.

        Raises StoreError when the rows could not be forgotten: then the files are looked for once more.
        """
        # Abandoned when cancelled: what is unlinked twice does no harm.
        gone = await trio.to_thread.run_sync(
            self._remove, list(places), limiter=self._thread, abandon_on_cancel=True
        )
        for place, size in places.items():
            if place in gone:
                self._space.forget(size)
                self._stuck.pop(place, None)
            else:
                self._stuck[place] = size
        await self._records.forget_trash(gone)

    def clear(self, place: str) -> None:
        """Blocking. Unlink a file in the transaction that puts it here, if that can be: for want of room."""
        self._remove([place])

    async def empty(self) -> None:
        """Unlink all that is due: what a kill or a failure has left. Raises StoreError, OSError."""
        failed = set[str]()
        while True:
            due = await self._records.due_trash(self._clock(), BATCH + len(failed))
            places = {place: self._stuck.get(place, 0) for place in due if place not in failed}
            if not places:
                return
            await self.unlink(places)
            failed |= places.keys() & self._stuck.keys()

    def _remove(self, places: list[str]) -> list[str]:
        """In a thread. A file that is not there is as good as gone."""
        gone = []
        for place in places:
            try:
                self._content.remove(place)
            except OSError as error:
                log.warning("evicted file not unlinked", place=place, error=str(error))
            else:
                gone.append(place)
        return gone
