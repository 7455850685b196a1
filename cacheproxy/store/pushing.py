"""Rows of what is being pushed: upload sessions, and the links by which a repository has its blobs.

A link that no image explains is kept until `keep_until`: whoever uploaded a blob, or heard that it is here,
has so long to push the manifest. Then the collector may take it (`collection.py`).

Where blobs are in a bucket, so are the chunks of a session: its row counts them. They leave with it, through
the trash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial as bind

import msgspec

from cacheproxy.core import events
from cacheproxy.core.digest import Digest
from cacheproxy.core.events import Event, Kind
from cacheproxy.core.settings import Settings
from cacheproxy.store import queries
from cacheproxy.store.database import Database, Row, Tx, settle
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.records import store_blob
from cacheproxy.store.review import BLOB, enqueue
from cacheproxy.store.sessions import NOTHING, Chunk, Sent

HOSTED = "SELECT id, settings FROM repository WHERE name = :name AND kind = 'hosted'"
STORED = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM link WHERE repository = :repository"

BEGIN = """
INSERT INTO upload (id, repository, principal, algorithm, started, touched)
VALUES (:session, :repository, :principal, :algorithm, :now, :now)
"""
COUNT = "SELECT count(*) FROM upload WHERE principal = :principal"
FIND = """
SELECT repository.name, upload.principal, upload.algorithm, upload.touched, upload.received, upload.last,
    repository.id, repository.settings
FROM upload JOIN repository ON repository.id = upload.repository
WHERE upload.id = :session
"""
TOUCH = "UPDATE upload SET touched = :now WHERE id = :session"
TRASH_CHUNKS = """
INSERT INTO trash (path, not_before) SELECT place, :now FROM chunk WHERE session = :session
ON CONFLICT (path) DO NOTHING
"""
END = "DELETE FROM upload WHERE id = :session RETURNING id"
UNTOUCHED = "SELECT 1 FROM upload WHERE id = :session AND touched < :before"
RECEIVED = "SELECT received FROM upload WHERE id = :session"
COUNTED = "SELECT 1 FROM chunk WHERE place = :place"
HOW_MANY = "SELECT count(*) FROM chunk WHERE session = :session"
ADD_CHUNK = "INSERT INTO chunk (place, session, start, size) VALUES (:place, :session, :start, :size)"
ADVANCE = "UPDATE upload SET received = :received, last = :place, touched = :now WHERE id = :session"
CHUNKS = "SELECT place, start, size FROM chunk WHERE session = :session ORDER BY start"
ACCOUNTED = """
SELECT place FROM chunk WHERE place = :place UNION SELECT path FROM trash WHERE path = :place
"""
STALE = "SELECT id FROM upload WHERE touched < :before ORDER BY touched, id LIMIT :n"

# An update, so that no other transaction takes the bytes away before this one is committed.
HOLD = """
UPDATE blob SET used = CASE WHEN used < :now THEN :now ELSE used END
WHERE digest = :digest AND generation > 0
RETURNING size
"""
LINK = """
INSERT INTO link (repository, digest, size, keep_until) VALUES (:repository, :digest, :size, :keep_until)
ON CONFLICT (repository, digest) DO UPDATE SET
    size = excluded.size,
    keep_until = CASE
        WHEN link.keep_until < excluded.keep_until THEN excluded.keep_until ELSE link.keep_until
    END
"""
# What an image that was taken without this blob has been waiting for.
ARRIVED = "DELETE FROM absent WHERE repository = :repository AND digest = :digest RETURNING image"
LINKED = "SELECT keep_until FROM link WHERE repository = :repository AND digest = :digest"
EXPLAINED = """
SELECT 1 FROM reference WHERE digest = :digest AND repository = :repository LIMIT 1
"""
HOLDERS = """
SELECT repository.name
FROM link JOIN repository ON repository.id = link.repository JOIN blob ON blob.digest = link.digest
WHERE link.digest = :digest AND blob.generation > 0
ORDER BY repository.name LIMIT :n
"""
UNLINK = "DELETE FROM link WHERE repository = :repository AND digest = :digest RETURNING digest"


@dataclass(frozen=True, slots=True)
class UploadRow:
    repository: str
    principal: str
    algorithm: str
    touched: float
    sent: Sent = NOTHING
    """Without the chunks themselves."""
    room: int | None = None
    """Bytes until the repository's quota; None: it has none."""


class NoRepository(Exception):
    """There is no hosted repository of that name (any more)."""


class TooManyChunks(Exception):
    """A session is sent in too many requests."""


class OverQuota(Exception):
    """The repository would have more bytes than its quota."""


class Pushing:
    """Raises StoreSuspect and StoreBusy; what writes, those, StoreFull, Conflict and CommitUnknown too.

    All that names a repository raises NoRepository; what gives it a blob, OverQuota. Times are seconds since
    the epoch.
    """

    def __init__(self, database: Database, outbox: Outbox | None = None) -> None:
        """`outbox`: where it is noted what blobs came and went; None: nobody is to be told."""
        self._database = database
        self._outbox = outbox or Outbox()

    async def begin(
        self, repository: str, session: str, principal: str, algorithm: str, now: float, most: int
    ) -> bool:
        """False: the principal has `most` uploads open already."""

        def begin(tx: Tx) -> bool:
            row, settings = hosted(tx, repository)
            room = _room(tx, row, settings)
            if room is not None and room <= 0:
                raise OverQuota(repository)
            open_now = tx.one(COUNT, principal=principal)
            if open_now is not None and open_now[0] >= most:
                return False
            tx.run(BEGIN, session=session, repository=row, principal=principal, algorithm=algorithm, now=now)
            return True

        return await self._database.write(begin)

    async def find(self, session: str) -> UploadRow | None:
        row = await self._database.read(lambda tx: tx.one(FIND, session=session))
        if row is None:
            return None
        name, principal, algorithm, touched, received, last, repository, written = row
        settings, room = Settings.parse(written), None
        if settings.quota_bytes is not None:  # the sum is over all that the repository has: not on the loop
            room = await self._database.scan(lambda tx: _room(tx, repository, settings))
        return UploadRow(name, principal, algorithm, touched, Sent(received, last), room)

    async def touch(self, session: str, now: float) -> None:
        """Somebody still works on it."""
        await self._database.write(lambda tx: tx.run(TOUCH, session=session, now=now))

    async def end(self, session: str, now: float, untouched: float = math.inf) -> bool:
        """False when it had ended, or was touched at `untouched` or later."""

        def end(tx: Tx) -> bool:
            idle = tx.one(UNTOUCHED, session=session, before=untouched) is not None
            return idle and _end(tx, session, now)

        return await self._database.write(end)

    async def add(self, session: str, chunk: Chunk, now: float, most: int) -> int | None:
        """Count a chunk that is where all nodes find it: the bytes received then, with it.

        Another number than its end: another request was first, and it is not counted. None: the session has
        ended. Raises TooManyChunks when it has `most` already.
        """
        return await settle(self._database, bind(_add, session, chunk, now, most))

    async def chunks(self, session: str) -> list[Chunk]:
        """In order."""
        rows = await self._database.read(lambda tx: tx.all(CHUNKS, session=session))
        return [Chunk(*row) for row in rows]

    async def accounted(self, files: Sequence[tuple[str, str]]) -> frozenset[str]:
        """Of (session, place) of chunks the places that a row knows: the session's, or the trash's."""

        def known(tx: Tx) -> frozenset[str]:
            return frozenset(place for _, place in files if tx.one(ACCOUNTED, place=place) is not None)

        return await self._database.scan(known)

    async def stale(self, before: float, n: int) -> list[str]:
        """Up to `n` uploads that nobody worked on since `before`."""
        rows = await self._database.scan(lambda tx: tx.all(STALE, before=before, n=n))
        return [session for (session,) in rows]

    async def link(
        self, repository: str, digest: Digest, now: float, keep_until: float, source: str | None = None
    ) -> int | None:
        """Give the repository a blob whose bytes are here: its size, or None when there are none.

        `source`: only if that repository has it (None: any).
        """
        kind = Kind.BLOB_PUSHED if source is None else Kind.BLOB_MOUNTED
        event = Event(kind, repository, now, digest, source=source or "", by=events.by.get())

        def link(tx: Tx) -> int | None:
            fresh = self._fresh(event, tx)
            size = _link(repository, source, digest, now, keep_until, tx)
            if fresh and size is not None:
                self._outbox.note(tx, msgspec.structs.replace(event, size=size))
            return size

        return await self._database.write(link)

    async def record(
        self,
        repository: str,
        session: str,
        digest: Digest,
        size: int,
        location: str,
        generation: int,
        now: float,
        keep_until: float,
    ) -> str | None:
        """The upload has become a blob, durable at `location`, and the repository has it.

        Returns None, or, where other bytes of this digest were recorded before, `location`: the file to
        unlink.
        """
        event = Event(Kind.BLOB_PUSHED, repository, now, digest, size=size, by=events.by.get())

        def record(tx: Tx) -> str | None:
            fresh = self._fresh(event, tx)
            _end(tx, session, now)  # first of all, as whoever deletes the repository does
            superseded = store_blob(digest, size, location, generation, now, tx)
            if _link(repository, None, digest, now, keep_until, tx) is None:
                raise AssertionError("a blob that was just stored is not there")
            if fresh:
                self._outbox.note(tx, event)
            return superseded

        return await settle(self._database, record)

    def _fresh(self, event: Event, tx: Tx) -> bool:
        """Whether somebody is to hear of a blob that the repository has not got yet."""
        if not self._outbox.wants(event.kind):
            return False
        return tx.one(queries.BLOB, repository=event.repository, digest=event.digest) is None

    async def stands(
        self, repository: str, digest: Digest, now: float, least: float, keep_until: float
    ) -> int | None:
        """The size of a blob of the repository's that can be counted on until `least`; None: it has none.

        Whoever hears of it will not upload it. So where nothing but time keeps it, and not so long, it is
        kept until `keep_until`.
        """
        read = bind(_standing, repository, digest, least)
        size, lasting = await self._database.read(read)
        if size is None or lasting:
            return size
        return await self._database.write(bind(_link, repository, repository, digest, now, keep_until))

    async def holders(self, digest: Digest, n: int) -> list[str]:
        """Up to `n` repositories that have the blob's bytes."""
        rows = await self._database.scan(lambda tx: tx.all(HOLDERS, digest=digest, n=n))
        return [name for (name,) in rows]

    async def unlink(self, repository: str, digest: Digest, now: float) -> bool | None:
        """Take the blob from the repository. False: it has none; None: an image there names it."""
        event = Event(Kind.BLOB_DELETED, repository, now, digest, by=events.by.get())

        def unlink(tx: Tx) -> bool | None:
            row, _ = hosted(tx, repository)
            if tx.one(EXPLAINED, repository=row, digest=digest) is not None:
                return None
            if tx.one(UNLINK, repository=row, digest=digest) is None:
                return False
            self._outbox.note(tx, event)
            enqueue(tx, BLOB, [digest], now)
            return True

        return await self._database.write(unlink)


def hosted(tx: Tx, name: str) -> tuple[int, Settings]:
    """The number of a hosted repository, and what is set for it. Raises NoRepository."""
    row = tx.one(HOSTED, name=name)
    if row is None:
        raise NoRepository(name)
    return int(row[0]), Settings.parse(row[1])


def _room(tx: Tx, repository: int, settings: Settings) -> int | None:
    if settings.quota_bytes is None:
        return None
    return settings.quota_bytes - stored(tx, repository)


def stored(tx: Tx, repository: int) -> int:
    """Bytes of all blobs that the repository has."""
    row = tx.one(STORED, repository=repository)
    assert row is not None
    return int(row[0])


def _add(session: str, chunk: Chunk, now: float, most: int, tx: Tx) -> int | None:
    row = tx.one(RECEIVED, session=session)
    if row is None:
        return None
    end = chunk.start + chunk.size
    if tx.one(COUNTED, place=chunk.key) is not None:
        return end  # by this very call, when nobody knew whether it was
    if row[0] != chunk.start:
        return int(row[0])
    counted = tx.one(HOW_MANY, session=session)
    if counted is not None and counted[0] >= most:
        raise TooManyChunks(session)
    tx.run(ADD_CHUNK, place=chunk.key, session=session, start=chunk.start, size=chunk.size)
    tx.run(ADVANCE, session=session, received=end, place=chunk.key, now=now)
    return end


def _end(tx: Tx, session: str, now: float) -> bool:
    tx.run(TRASH_CHUNKS, session=session, now=now)
    return tx.one(END, session=session) is not None


def _link(
    repository: str, source: str | None, digest: Digest, now: float, keep_until: float, tx: Tx
) -> int | None:
    row, settings = hosted(tx, repository)
    if source is not None and tx.one(queries.BLOB, repository=source, digest=digest) is None:
        return None
    held = tx.one(HOLD, digest=digest, now=now)
    if held is None:
        return None
    room = _room(tx, row, settings)
    fits = room is None or held[0] <= room
    if not fits and tx.one(LINKED, repository=row, digest=digest) is None:
        raise OverQuota(repository)
    tx.run(LINK, repository=row, digest=digest, size=held[0], keep_until=keep_until)
    for (image,) in tx.all(ARRIVED, repository=row, digest=digest):
        tx.run(queries.ADD_REFERENCE, repository=row, image=image, digest=digest)
    enqueue(tx, BLOB, [digest], keep_until)
    return int(held[0])


def _standing(repository: str, digest: Digest, least: float, tx: Tx) -> tuple[int | None, bool]:
    """The size of the repository's blob, and whether it lasts that long anyway."""
    row = tx.one(queries.BLOB, repository=repository, digest=digest)
    if row is None or row[1] == 0:
        return None, False
    number, _ = hosted(tx, repository)
    kept = tx.one(LINKED, repository=number, digest=digest)
    explained: Row | None = tx.one(EXPLAINED, repository=number, digest=digest)
    return int(row[0]), explained is not None or (kept is not None and kept[0] >= least)
