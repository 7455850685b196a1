"""What goes is told of, as its rows have it: they are looked at only if somebody is to hear of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cacheproxy.core.events import By, Event, Kind
from cacheproxy.store.database import Tx
from cacheproxy.store.outbox import Outbox

OF_IMAGE = """
SELECT repository.name, image.media_type, image.artifact_type, image.size
FROM image JOIN repository ON repository.id = image.repository
WHERE image.repository = :repository AND image.digest = :digest
"""


class Farewell(NamedTuple):
    """To whom it is told, when it was, and who wanted it."""

    outbox: Outbox
    now: float
    by: By | None = None

    def image(self, tx: Tx, repository: int, digest: str, tags: Iterable[str] = ()) -> None:
        """An image that is about to go, and the tags that meant it."""
        if self.outbox.wants(Kind.IMAGE_DELETED, Kind.TAG_DELETED):
            for event in self._events(tx, repository, digest, sorted(tags)):
                self.outbox.note(tx, event)

    def tag(self, tx: Tx, repository: int, digest: str, tag: str) -> None:
        """A tag that is gone; what it meant is here still."""
        if self.outbox.wants(Kind.TAG_DELETED):
            for event in self._events(tx, repository, digest, [tag])[:1]:
                self.outbox.note(tx, event)

    def repository(self, tx: Tx, name: str) -> None:
        self.outbox.note(tx, Event(Kind.REPOSITORY_DELETED, name, self.now, by=self.by))

    def _events(self, tx: Tx, repository: int, digest: str, tags: Iterable[str]) -> list[Event]:
        """One a tag, and then the image's."""
        row = tx.one(OF_IMAGE, repository=repository, digest=digest)
        if row is None:
            return []
        name, media_type, artifact_type, size = row
        return [
            Event(
                Kind.TAG_DELETED if tag else Kind.IMAGE_DELETED,
                name,
                self.now,
                digest,
                media_type,
                artifact_type or "",
                size,
                tag,
                by=self.by,
            )
            for tag in (*tags, "")
        ]
