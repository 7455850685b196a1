"""Pushing blobs: sessions that bytes are appended to, and what becomes of them.

A session belongs to the repository that it was begun in and to whoever began it; for all others there is
none. How far it is, its file says, or, where blobs are in a bucket, its row: after a restart, or at another
node, a client asks and goes on from there. That the repository has the blob is not said before the digest is
proven and the bytes, and the row that names them, are durable.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial as bind
from typing import TypeVar

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.registry import orphans
from cacheproxy.registry.pouring import Receive, TooMuch, pour
from cacheproxy.registry.refusals import Ended, OutOfOrder, in_repository, over_quota, reported, within_quota
from cacheproxy.store.content import Content
from cacheproxy.store.disk import Location
from cacheproxy.store.errors import StoreError
from cacheproxy.store.pushing import OverQuota, Pushing, TooManyChunks, UploadRow
from cacheproxy.store.sessions import Chunk, Sent, Upload, Uploads

log = structlog.get_logger()

T = TypeVar("T")

GRACE = 86400.0
"""Seconds that a blob which no image names is kept: from one end of a build to the other."""

SESSION_KEPT = 86400.0
"""Seconds that an upload which nobody works on is kept."""

TOUCH_EVERY = 300.0
EXPIRE_EVERY = 600.0
MOST_SESSIONS = 1000
"""Of one principal, open at once. (Docker pushes five layers at a time.)"""

MOST_CHUNKS = 10_000
"""Of one session in a bucket: S3's own number of parts. Each is a row, and a request when they are joined."""

WRITERS = 8
"""Threads that write and hash at once: more than any disk gains from."""

TIDY_SECONDS = 10.0
"""For what is left behind by a request that has ended already, whoever has gone."""


class Push:
    """All raise OCIError, and StoreError and OSError where the store fails."""

    def __init__(
        self,
        pushing: Pushing,
        files: Uploads,
        content: Content,
        clock: Callable[[], float],
        grace: float = GRACE,
    ) -> None:
        self._pushing = pushing
        self._files = files
        self._content = content
        self._clock = clock
        self._grace = grace
        self._threads = trio.CapacityLimiter(WRITERS)

    async def begin(self, repository: str, principal: str, algorithm: str) -> str:
        """A new session in a hosted repository: its name."""
        session = secrets.token_hex(16)
        with reported():
            await self._run(self._files.begin, session)
        begun = self._pushing.begin(repository, session, principal, algorithm, self._clock(), MOST_SESSIONS)
        try:
            counted = await within_quota(repository, in_repository(repository, begun))
        except OCIError:
            await self._run(self._files.drop, session)
            raise
        if not counted:
            await self._run(self._files.drop, session)
            raise OCIError(
                "TOOMANYREQUESTS",
                f"{principal} has {MOST_SESSIONS} uploads open: finish or cancel some, or wait a day",
            )
        return session

    async def status(self, session: str, repository: str, principal: str) -> int:
        """Bytes that were received."""
        row = await self._find(session, repository, principal)
        with reported():
            return await self._run(self._files.size, session, row.sent)

    async def append(
        self,
        session: str,
        repository: str,
        principal: str,
        receive: Receive,
        span: tuple[int, int] | None = None,
    ) -> int:
        """Put the body behind what was received; the bytes there are then.

        `span`: where the client says that they belong, half-open. What came of a body that broke off stays.
        """
        row = await self._find(session, repository, principal)
        async with self._opened(session, row, row.sent) as upload:
            await self._append(upload, session, row, receive, span)
            await self._keep(upload, session)
            return upload.size

    async def finish(
        self,
        session: str,
        repository: str,
        principal: str,
        digest: Digest,
        receive: Receive,
        span: tuple[int, int] | None = None,
    ) -> int:
        """Append what comes, prove the digest, and make it the repository's blob, durably: its size.

        An upload that has become this blob already is no error: the client did not hear of it.
        """
        try:
            row = await self._find(session, repository, principal)
            async with self._opened(session, row, await self._whole(session, row.sent)) as upload:
                await self._append(upload, session, row, receive, span)
                await self._prove(upload, session, digest)
                await self._store(upload, session, repository, digest)
                return upload.size
        except Ended:
            size = await self.find(repository, digest)
            if size is None:
                raise
            return size

    async def _whole(self, session: str, sent: Sent) -> Sent:
        """With its chunks. Since it was found another request may have ended it, or brought more."""
        if not sent.received:
            return sent
        chunks = [chunk for chunk in await self._pushing.chunks(session) if chunk.start < sent.received]
        if sum(chunk.size for chunk in chunks) != sent.received:
            raise Ended
        return sent._replace(chunks=tuple(chunks))

    async def whole(
        self, repository: str, principal: str, algorithm: str, digest: Digest, receive: Receive
    ) -> int:
        """A blob in one request: nobody could go on with what is left of it, so nothing is."""
        session = await self.begin(repository, principal, algorithm)
        try:
            return await self.finish(session, repository, principal, digest, receive)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TIDY_SECONDS):
                await self._drop(session)
            raise

    async def cancel(self, session: str, repository: str, principal: str) -> None:
        await self._find(session, repository, principal)
        await self._drop(session)

    async def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Give the repository a blob that `source` has; False: it has none, or its bytes are not here."""
        now = self._clock()
        link = self._pushing.link(repository, digest, now, now + self._grace, source=source)
        return await within_quota(repository, in_repository(repository, link)) is not None

    async def mount_from_any(self, repository: str, digest: Digest, readable: Callable[[str], bool]) -> bool:
        """As `mount`, from any repository that the caller may read."""
        for source in await self._pushing.holders(digest, MOST_SESSIONS):
            if readable(source) and await self.mount(repository, digest, source):
                return True
        return False

    async def find(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob of the repository's, to be counted on for half the grace; None: it has none."""
        now = self._clock()
        return await self._pushing.stands(repository, digest, now, now + self._grace / 2, now + self._grace)

    async def delete(self, repository: str, digest: Digest) -> None:
        """Take a blob from the repository that no image there names."""
        gone = await in_repository(repository, self._pushing.unlink(repository, digest, self._clock()))
        if gone is None:
            raise OCIError(
                "DENIED", f"an image in {repository} consists of {digest}: delete the image first", status=405
            )
        if not gone:
            raise OCIError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")

    async def run(self) -> None:
        """For ever: sessions that nobody came back to end, and what a kill has left of them goes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.expire)
            nursery.start_soon(orphans.watch, self._files, self._pushing, self._clock)

    async def expire(self) -> None:
        """For ever: sessions that nobody came back to end."""
        while True:
            try:
                await self._expire()
            except (OSError, StoreError) as error:
                log.warning("old uploads not looked through", error=str(error))
            await trio.sleep(EXPIRE_EVERY)

    async def _expire(self) -> None:
        now = self._clock()
        rows = await self._pushing.stale(now - SESSION_KEPT, MOST_SESSIONS)
        files = await self._run(lambda: list(self._files.stale(SESSION_KEPT, now)))
        for session in sorted({*rows, *files}):
            if await self._run(self._files.idle, session) and await self._expired(session, now):
                log.info("upload ended: nobody came back to it", session=session)

    async def _expired(self, session: str, now: float) -> bool:
        """False: somebody has come back to it since it was found."""
        ended = await self._pushing.end(session, now, now - SESSION_KEPT)
        if not ended and await self._pushing.find(session) is not None:
            return False
        await self._run(self._files.drop, session)
        return True

    async def _find(self, session: str, repository: str, principal: str) -> UploadRow:
        row = await self._pushing.find(session)
        if row is None or row.repository != repository or row.principal != principal:
            raise Ended
        now = self._clock()
        if now - row.touched > TOUCH_EVERY:
            await self._pushing.touch(session, now)
        return row

    @asynccontextmanager
    async def _opened(self, session: str, row: UploadRow, sent: Sent) -> AsyncIterator[Upload]:
        with reported():
            upload = await self._run(self._files.open, session, row.algorithm, sent)
        try:
            yield upload
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TIDY_SECONDS):
                await trio.to_thread.run_sync(upload.close, abandon_on_cancel=True)

    async def _append(
        self,
        upload: Upload,
        session: str,
        row: UploadRow,
        receive: Receive,
        span: tuple[int, int] | None,
    ) -> None:
        start = upload.size
        if span is not None and span[0] != start:
            raise OutOfOrder(start)
        broken = await self._pour(upload, session, row, receive)
        if broken is not None:
            await self._keep(upload, session)
            raise broken
        if span is not None and upload.size != span[1]:
            came = upload.size - start
            await self._run(upload.cut, start)
            raise OCIError(
                "SIZE_INVALID", f"Content-Range names {span[1] - span[0]} bytes, and {came} came", status=400
            )

    async def _pour(self, upload: Upload, session: str, row: UploadRow, receive: Receive) -> Exception | None:
        """None, or why the body broke off."""
        most = None if row.room is None else row.room - upload.size
        try:
            with reported():
                return await pour(receive, bind(self._run, upload.append), most)
        except TooMuch:
            await self._drop(session)
            raise over_quota(row.repository) from None

    async def _keep(self, upload: Upload, session: str) -> None:
        """What came is where all nodes find it, and counted, before the client hears of it."""
        with reported():
            chunk: Chunk | None = await self._run(upload.send)
        if chunk is None:
            return
        refused: OCIError = Ended()
        try:
            received = await self._pushing.add(session, chunk, self._clock(), MOST_CHUNKS)
            if received == chunk.start + chunk.size:
                return
            if received is not None:
                refused = OutOfOrder(received)  # another request was first
        except TooManyChunks:
            said = f"an upload is sent in {MOST_CHUNKS} requests at most: send more bytes in each"
            refused = OCIError("BLOB_UPLOAD_INVALID", said, status=400)
        await self._run(self._files.remove, chunk.key)
        raise refused

    async def _prove(self, upload: Upload, session: str, digest: Digest) -> None:
        with reported():
            found: Digest = await self._run(upload.digest, digest.algorithm)
        if found != digest:
            await self._drop(session)  # wrong bytes will not become right ones
            raise OCIError(
                "DIGEST_INVALID",
                f"what was sent is {found}, not {digest}; the upload has ended, begin it again",
                detail={"sent": upload.size},
            )

    async def _store(self, upload: Upload, session: str, repository: str, digest: Digest) -> None:
        now = self._clock()
        keep_until = now + self._grace
        try:
            linked = self._pushing.link(repository, digest, now, keep_until)
            if await in_repository(repository, linked) is not None:
                await self._drop(session)  # its bytes are here already
                return
            with reported():
                location: Location = await self._run(self._content.commit, upload.proven(digest))
            recorded = self._pushing.record(
                repository, session, digest, upload.size, *location, now, keep_until
            )
            superseded = await self._recorded(repository, location, recorded)
        except OverQuota:
            await self._drop(session)
            raise over_quota(repository) from None
        if superseded is not None:
            await self._run(self._content.remove, superseded)

    async def _recorded(
        self, repository: str, location: Location, record: Awaitable[str | None]
    ) -> str | None:
        """What is stored and refused goes again at once: nobody was told of it."""
        try:
            return await in_repository(repository, record)
        except (OverQuota, OCIError):
            await self._run(self._content.remove, location.path)
            raise

    async def _drop(self, session: str) -> None:
        await self._pushing.end(session, self._clock())
        await self._run(self._files.drop, session)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(bind(function, *arguments), limiter=self._threads)
