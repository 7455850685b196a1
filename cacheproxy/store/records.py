"""The rows: what repositories have, what tags mean, and where bytes are.

A cached repository's rows, as they come to be: a manifest is recorded with all that it names
(`record_image`); the blobs it names have generation 0 until a fill brings their bytes (`record_blob`). A blob
is reached through its link to a repository, never by its digest alone.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial as bind
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.core.events import Event, Kind
from cacheproxy.core.manifest import ParsedManifest
from cacheproxy.core.settings import Settings
from cacheproxy.store import queries
from cacheproxy.store.database import Database, Row, Tx, settle
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.outbox import Outbox
from cacheproxy.store.rows import BlobRow, Evictable, ImageRow, ReferrerRow, Repository, TagRow

T = TypeVar("T")

NOTHING_SET = Settings()


class Born(NamedTuple):
    """A cached repository, as it is made when the first thing in it is recorded."""

    name: str
    upstream: str
    settings: Settings


class Records:
    """Reads raise StoreSuspect and StoreBusy; what writes, those, StoreFull, Conflict and CommitUnknown.

    A write returns once it is durable. `now` and all times are seconds since the epoch.
    """

    def __init__(self, database: Database, outbox: Outbox | None = None) -> None:
        """`outbox`: where it is noted that an image is here now; None: nobody is to be told."""
        self._database = database
        self._outbox = outbox or Outbox()

    # Point reads: one query by key each, inline where the database is in this process.

    async def repository(self, name: str) -> Repository | None:
        row = await self._one(queries.REPOSITORY, name=name)
        return None if row is None else Repository(*row)

    async def settings(self, name: str) -> Settings:
        """What is set for the repository, which may be not there."""
        row = await self._one(queries.SETTINGS, name=name)
        return NOTHING_SET if row is None else Settings.parse(row[0])

    async def tag(self, repository: str, name: str) -> TagRow | None:
        row = await self._one(queries.TAG, repository=repository, name=name)
        if row is None:
            return None
        digest, checked, moved, pending = row
        return TagRow(_digest(digest), checked, moved, _digest_or_none(pending))

    async def image(self, repository: str, digest: Digest) -> ImageRow | None:
        row = await self._one(queries.IMAGE, repository=repository, digest=digest)
        if row is None:
            return None
        media_type, artifact_type, size, subject, body = row
        return ImageRow(digest, media_type, artifact_type, size, _digest_or_none(subject), bytes(body))

    async def blob(self, repository: str, digest: Digest) -> BlobRow | None:
        """Through the repository's link; None when it has none. Generation 0: its bytes are to be fetched."""
        row = await self._one(queries.BLOB, repository=repository, digest=digest)
        return None if row is None else BlobRow(digest, *row)

    async def any_blob(self, digest: Digest) -> BlobRow | None:
        """Whichever repository has it: for the store's own upkeep, never for an answer to a client."""
        row = await self._one(queries.ANY_BLOB, digest=digest)
        return None if row is None else BlobRow(digest, *row)

    # Scans.

    async def tags(self, repository: str) -> list[str]:
        """In the order of their bytes."""
        return sorted(name for (name,) in await self._scan(queries.TAGS, repository=repository))

    async def referrers(self, repository: str, subject: Digest) -> list[ReferrerRow]:
        """Images here whose subject it is, the first recorded first."""
        rows = await self._scan(queries.REFERRERS, repository=repository, subject=subject)
        return [ReferrerRow(_digest(digest), *rest) for digest, *rest in rows]

    async def repositories(self, last: str, n: int) -> list[str]:
        """Up to `n` names behind `last`, in the order of their bytes."""
        return [name for (name,) in await self._scan(queries.REPOSITORIES, last=last, n=n)]

    async def cached_bytes(self) -> int:
        """Bytes of all blobs that are here and may be evicted, but for pins."""
        ((total,),) = await self._scan(queries.CACHED_BYTES)
        return int(total)

    async def images(self) -> int:
        ((count,),) = await self._scan(queries.IMAGES)
        return int(count)

    # Writes: one transaction each.

    async def record_image(
        self,
        repository: str,
        upstream: str,
        digest: Digest,
        body: bytes,
        parsed: ParsedManifest,
        now: float,
        tag: str | None = None,
        settings: Settings = NOTHING_SET,
    ) -> None:
        """A manifest and all that it names; with `tag`, the tag means it from now on, and is checked.

        `settings` are the repository's if it is not there yet. Recording it again is fine.
        """
        born = Born(repository, upstream, settings)
        record = bind(_record_image, born, digest, body, parsed, now, tag, self._outbox)
        await self._settle(record)

    async def record_checked(self, repository: str, tag: str, now: float, pending: Digest | None) -> None:
        """The upstream was asked at `now`: the tag means what is here, or else (`pending`) what is to be
        fetched."""
        await self._run(queries.CHECK_TAG, repository=repository, name=tag, checked=now, pending=pending)

    async def record_link(
        self,
        repository: str,
        upstream: str,
        digest: Digest,
        size: int,
        now: float,
        settings: Settings = NOTHING_SET,
    ) -> None:
        """The upstream says that the repository has this blob, of so many bytes."""
        born = Born(repository, upstream, settings)

        def record(tx: Tx) -> None:
            row = _repository_id(tx, born, now)
            tx.run(queries.NAME_BLOB, digest=digest, size=size, now=now)
            tx.run(queries.ADD_LINK, repository=row, digest=digest, size=size)

        await self._settle(record)

    async def record_blob(
        self, digest: Digest, size: int, location: str, generation: int, now: float
    ) -> str | None:
        """The bytes of a blob are durable at `location`.

        Returns None, or, where other bytes of this digest were recorded before, `location`: the file to
        unlink.
        """

        return await self._settle(bind(store_blob, digest, size, location, generation, now))

    async def forget_bytes(self, digest: Digest, generation: int) -> bool:
        """The bytes of this generation were found missing; False when somebody has noted that already."""
        forget = bind(_one, queries.FORGET_BYTES, {"digest": digest, "generation": generation})
        return await self._database.write(forget) is not None

    # What is used, what is pinned, and what goes: rows stay, and the next pull brings the bytes again.

    async def record_used(self, reads: Iterable[tuple[Digest, float]]) -> None:
        """When blobs were last read, in one transaction; an earlier time than is known changes nothing."""
        in_order = sorted(reads)

        def record(tx: Tx) -> None:
            for digest, used in in_order:
                tx.run(queries.RECORD_USED, digest=digest, used=used)

        await self._settle(record)

    async def oldest_used(self) -> float | None:
        """When the stored blob that was not read for the longest time was read; None: nothing is stored."""
        ((used,),) = await self._scan(queries.OLDEST_USED)
        return None if used is None else float(used)

    async def evictable(
        self, n: int, after: Evictable | None = None, before: float = math.inf
    ) -> list[Evictable]:
        """Up to `n` stored blobs behind `after`, the least recently used first, last read before `before`.

        None that a hosted repository has, or that a pin holds.
        """
        rows = await self._scan(
            queries.EVICTABLE,
            n=n,
            before=before,
            after_used=-math.inf if after is None else after.used,
            after_digest="" if after is None else after.digest,
        )
        return [_evictable(blob, upstreams) for blob, upstreams in groupby(rows, key=lambda row: row[:-1])]

    async def evict(
        self,
        blobs: Sequence[Evictable],
        not_before: float,
        unlink: Callable[[str], object] = lambda location: None,
    ) -> list[Evictable]:
        """Take the bytes from the rows and put their places into the trash, in one transaction.

        Returns those that went: not what was read, pinned or replaced since it was chosen, nor what a hosted
        repository got. The files may be unlinked from `not_before` on.

        `unlink`, which may block and raises nothing: called for each of them before the commit, where that
        is what makes room for it. Nobody can get the blob between the two.
        """
        return await self._database.write(
            bind(_evict, sorted(blobs, key=lambda blob: blob.digest), not_before, unlink)
        )

    async def accounted(self, files: Sequence[tuple[str, str]]) -> frozenset[str]:
        """Of the places of up to PLACES files those that are in a row: its blob's, or the trash's."""
        assert len(files) <= queries.PLACES
        padded = [*files, *[("", "")] * (queries.PLACES - len(files))]
        named = {f"digest{n}": digest for n, (digest, _) in enumerate(padded)}
        named |= {f"path{n}": path for n, (_, path) in enumerate(padded)}
        known = {path for (path,) in await self._scan(queries.ACCOUNTED, **named)}
        return frozenset(path for _, path in files if path in known)

    async def due_trash(self, now: float, n: int) -> list[str]:
        """Up to `n` places whose files are to be unlinked by now."""
        return [path for (path,) in await self._scan(queries.DUE_TRASH, now=now, n=n)]

    async def forget_trash(self, paths: Iterable[str]) -> None:
        """The files are gone."""
        in_order = sorted(paths)

        def forget(tx: Tx) -> None:
            for path in in_order:
                tx.run(queries.FORGET_TRASH, path=path)

        await self._settle(forget)

    async def pin(self, repository: str, name: str) -> bool:
        """Hold the blobs of an image: of what a tag means at any time, or of a digest.

        False: there is no such repository.
        """

        def pin(tx: Tx) -> bool:
            tx.run(queries.ADD_PIN, repository=repository, name=name)
            return tx.one(queries.REPOSITORY_ID, name=repository) is not None

        return await self._settle(pin)

    async def unpin(self, repository: str, name: str) -> bool:
        """False when it was not pinned."""
        drop = bind(_one, queries.DROP_PIN, {"repository": repository, "name": name})
        return await self._database.write(drop) is not None

    async def pins(self) -> list[tuple[str, str]]:
        """Repositories and the tags or digests pinned in them."""
        return [(repository, name) for repository, name in await self._scan(queries.PINS)]

    async def pinned(self) -> frozenset[Digest]:
        """All blobs that pins hold."""
        return frozenset(_digest(text) for (text,) in await self._scan(queries.PINNED))

    async def _one(self, sql: str, **named: object) -> Row | None:
        return await self._database.read(bind(_one, sql, named))

    async def _scan(self, sql: str, **named: object) -> list[Row]:
        return await self._database.scan(lambda tx: tx.all(sql, **named))

    async def _run(self, sql: str, **named: object) -> None:
        await self._settle(lambda tx: tx.run(sql, **named))

    async def _settle(self, fn: Callable[[Tx], T]) -> T:
        return await settle(self._database, fn)


def _one(sql: str, named: dict[str, object], tx: Tx) -> Row | None:
    return tx.one(sql, **named)


def store_blob(digest: Digest, size: int, location: str, generation: int, now: float, tx: Tx) -> str | None:
    """Its bytes are durable at `location`. None; or `location`, where others were recorded before."""
    tx.run(queries.STORE_BLOB, digest=digest, size=size, location=location, generation=generation, now=now)
    row = tx.one(queries.ANY_BLOB, digest=digest)
    return None if row is not None and row[2] == location else location


def _record_image(
    born: Born,
    digest: Digest,
    body: bytes,
    parsed: ParsedManifest,
    now: float,
    tag: str | None,
    outbox: Outbox,
    tx: Tx,
) -> None:
    if outbox.wants(Kind.IMAGE_CACHED):
        _tell(born.name, born.upstream, digest, len(body), parsed, now, tag, outbox, tx)
    row = _repository_id(tx, born, now)
    tx.run(queries.ADD_MANIFEST, digest=digest, body=body)
    tx.run(
        queries.ADD_IMAGE,
        repository=row,
        digest=digest,
        media_type=parsed.media_type,
        artifact_type=parsed.artifact_type,
        size=len(body),
        subject=None if parsed.subject is None else parsed.subject.digest,
        now=now,
    )
    _record_named(tx, row, digest, parsed, now)
    if tag is not None:
        tx.run(queries.MOVE_TAG, repository=row, name=tag, digest=digest, now=now)


def _tell(
    repository: str,
    upstream: str,
    digest: Digest,
    size: int,
    parsed: ParsedManifest,
    now: float,
    tag: str | None,
    outbox: Outbox,
    tx: Tx,
) -> None:
    """Of an image that was not here, or of a tag that means it from now on."""
    meant = None if tag is None else tx.one(queries.TAG, repository=repository, name=tag)
    known = tx.one(queries.IMAGE, repository=repository, digest=digest) is not None
    before = "" if meant is None else str(meant[0])
    if known and (tag is None or before == digest):
        return
    media_type, artifact_type = parsed.media_type, parsed.artifact_type or ""
    described = (digest, media_type, artifact_type, size, tag or "", before)
    outbox.note(tx, Event(Kind.IMAGE_CACHED, repository, now, *described, upstream=upstream))


def _record_named(tx: Tx, repository: int, image: Digest, parsed: ParsedManifest, now: float) -> None:
    """What the manifest names: blobs with their links, and children."""
    # In the order of digests: two transactions that touch the same rows never wait for one another in a
    # circle.
    for digest, size in sorted({blob.digest: blob.size for blob in parsed.blobs}.items()):
        tx.run(queries.NAME_BLOB, digest=digest, size=size, now=now)
        tx.run(queries.ADD_LINK, repository=repository, digest=digest, size=size)
        tx.run(queries.ADD_REFERENCE, repository=repository, image=image, digest=digest)
    for child in sorted({child.digest for child in parsed.manifests}):
        tx.run(queries.ADD_CHILD, repository=repository, image=image, digest=child)


def _repository_id(tx: Tx, born: Born, now: float) -> int:
    tx.run(
        queries.ADD_REPOSITORY,
        name=born.name,
        upstream=born.upstream,
        now=now,
        settings=born.settings.text(),
    )
    row = tx.one(queries.REPOSITORY_ID, name=born.name)
    assert row is not None
    return int(row[0])


def _evictable(blob: Row, rows: Iterable[Row]) -> Evictable:
    digest, size, generation, location, used = blob
    upstreams = frozenset(row[-1] for row in rows if row[-1] is not None)
    return Evictable(_digest(digest), size, generation, location, used, upstreams)


def _evict(
    blobs: Sequence[Evictable], not_before: float, unlink: Callable[[str], object], tx: Tx
) -> list[Evictable]:
    pinned = {text for (text,) in tx.all(queries.PINNED)}
    gone = []
    for blob in blobs:
        named = {"digest": blob.digest, "generation": blob.generation, "used": blob.used}
        if blob.digest not in pinned and tx.one(queries.EVICT, **named) is not None:
            tx.run(queries.ADD_TRASH, path=blob.location, not_before=not_before)
            gone.append(blob)
    for blob in gone:
        unlink(blob.location)
    return gone


def _digest(text: Any) -> Digest:
    try:
        return Digest.parse(text)
    except (InvalidDigest, TypeError) as error:
        raise StoreSuspect(errno.EIO, f"a row has {text!r} for a digest") from error


def _digest_or_none(text: Any) -> Digest | None:
    return None if text is None else _digest(text)
