"""Pushing blobs: sessions that bytes are appended to, and what becomes of them.

A session belongs to the repository that it was begun in and to whoever began it; for all others there is
none. How far it is, the file says: after a restart a client asks, and goes on from there. Nothing is promised
before the digest is proven and the bytes, and the row that names them, are durable.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial as bind
from typing import TypeVar

import structlog
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.store.content import Content
from cacheproxy.store.durable import OUT_OF_SPACE
from cacheproxy.store.errors import StoreError
from cacheproxy.store.pushing import NoRepository, Pushing, UploadRow
from cacheproxy.store.uploads import Received, UploadBusy, UploadFile, UploadFiles, UploadGone

log = structlog.get_logger()

T = TypeVar("T")
Receive = Callable[[], Awaitable[bytes]]
"""Some bytes of a body; empty at its end. Raises what says that the client is gone."""

BATCH = 1 << 20
"""Bytes that are written and hashed in one go, while the next ones come in."""

GRACE = 86400.0
"""Seconds that a blob which no image names is kept: from one end of a build to the other."""

SESSION_KEPT = 86400.0
"""Seconds that an upload which nobody works on is kept."""

TOUCH_EVERY = 300.0
EXPIRE_EVERY = 600.0
MOST_SESSIONS = 1000
"""Of one principal, open at once. (Docker pushes five layers at a time.)"""

WRITERS = 8
"""Threads that write and hash at once: more than any disk gains from."""


class Push:
    """All raise OCIError, and StoreError and OSError where the store fails."""

    def __init__(
        self,
        pushing: Pushing,
        files: UploadFiles,
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
        await self._run(self._files.begin, session)
        begun = bind(self._pushing.begin, repository, session, principal, algorithm)
        if not await _in_repository(repository, begun(self._clock(), MOST_SESSIONS)):
            await self._run(self._files.drop, session)
            raise OCIError(
                "TOOMANYREQUESTS",
                f"{principal} has {MOST_SESSIONS} uploads open: finish or cancel some, or wait a day",
            )
        return session

    async def status(self, session: str, repository: str, principal: str) -> int:
        """Bytes that were received."""
        await self._find(session, repository, principal)
        try:
            return await self._run(self._files.size, session)
        except UploadGone:
            raise _unknown() from None

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
        upload = await self._open(session, row.algorithm)
        try:
            await self._append(upload, receive, span)
            return upload.size
        finally:
            upload.close()

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
        except OCIError:
            size = await self.find(repository, digest)
            if size is None:
                raise
            return size
        upload = await self._open(session, row.algorithm)
        try:
            await self._append(upload, receive, span)
            await self._prove(upload, session, digest)
            await self._store(upload, session, repository, digest)
            return upload.size
        finally:
            upload.close()

    async def cancel(self, session: str, repository: str, principal: str) -> None:
        await self._find(session, repository, principal)
        await self._drop(session)

    async def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Give the repository a blob that `source` has; False: it has none, or its bytes are not here."""
        now = self._clock()
        link = self._pushing.link(repository, digest, now, now + self._grace, source=source)
        return await _in_repository(repository, link) is not None

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
        gone = await _in_repository(repository, self._pushing.unlink(repository, digest, self._clock()))
        if gone is None:
            raise OCIError(
                "DENIED", f"an image in {repository} consists of {digest}: delete the image first", status=405
            )
        if not gone:
            raise OCIError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")

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
            if await self._run(self._idle, session):
                await self._drop(session)
                log.info("upload ended: nobody came back to it", session=session)

    def _idle(self, session: str) -> bool:
        """Whether no request is appending to it."""
        try:
            self._files.open(session, "sha256").close()
        except UploadBusy:
            return False
        except UploadGone:
            return True
        return True

    async def _find(self, session: str, repository: str, principal: str) -> UploadRow:
        row = await self._pushing.find(session)
        if row is None or row.repository != repository or row.principal != principal:
            raise _unknown()
        now = self._clock()
        if now - row.touched > TOUCH_EVERY:
            await self._pushing.touch(session, now)
        return row

    async def _open(self, session: str, algorithm: str) -> UploadFile:
        try:
            return await self._run(self._files.open, session, algorithm)
        except UploadGone:
            raise _unknown() from None
        except UploadBusy:
            said = "another request is sending bytes of this upload: wait for it, or ask how far it is"
            raise OCIError("BLOB_UPLOAD_INVALID", said, status=409) from None

    async def _append(self, upload: UploadFile, receive: Receive, span: tuple[int, int] | None) -> None:
        start = upload.size
        if span is not None and span[0] != start:
            raise OutOfOrder(start)
        await self._pour(upload, receive)
        if span is not None and upload.size != span[1]:
            came = upload.size - start
            await self._run(upload.cut, start)
            raise OCIError(
                "SIZE_INVALID", f"Content-Range names {span[1] - span[0]} bytes, and {came} came", status=400
            )

    async def _pour(self, upload: UploadFile, receive: Receive) -> None:
        """Receive and write side by side. Raises what `receive` does, once all that came is written."""
        broken: Exception | None = None
        failed: OSError | None = None
        batches, written = trio.open_memory_channel[list[bytes]](0)

        async def write() -> None:
            nonlocal failed
            async for batch in written:
                try:
                    await self._run(upload.append, batch)
                except OSError as error:
                    failed = error
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async with batches:
                try:
                    await _pass_on(receive, batches.send)
                except Exception as error:  # noqa: BLE001 - it is raised below
                    broken = error
        if failed is not None:
            raise _no_room(failed)
        if broken is not None:
            raise broken

    async def _prove(self, upload: UploadFile, session: str, digest: Digest) -> None:
        found = await self._run(upload.digest, digest.algorithm)
        if found != digest:
            await self._drop(session)  # wrong bytes will not become right ones
            raise OCIError(
                "DIGEST_INVALID",
                f"what was sent is {found}, not {digest}; the upload has ended, begin it again",
                detail={"sent": upload.size},
            )

    async def _store(self, upload: UploadFile, session: str, repository: str, digest: Digest) -> None:
        now = self._clock()
        keep_until = now + self._grace
        linked = self._pushing.link(repository, digest, now, keep_until)
        if await _in_repository(repository, linked) is not None:
            await self._drop(session)  # its bytes are here already
            return
        try:
            location = await self._run(self._content.commit, Received(digest, upload))
        except UploadGone:
            raise _unknown() from None
        except OSError as error:
            raise _no_room(error) from error
        recorded = self._pushing.record(repository, session, digest, upload.size, *location, now, keep_until)
        superseded = await _in_repository(repository, recorded)
        if superseded is not None:
            await self._run(self._content.remove, superseded)

    async def _drop(self, session: str) -> None:
        await self._pushing.end(session)
        await self._run(self._files.drop, session)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(bind(function, *arguments), limiter=self._threads)


class OutOfOrder(OCIError):
    """Bytes that do not begin where the last ones ended: 416."""

    def __init__(self, received: int) -> None:
        super().__init__(
            "RANGE_INVALID", f"the upload has {received} bytes: go on from there (see the Range header)"
        )
        self.received = received


async def _pass_on(receive: Receive, pass_on: Callable[[list[bytes]], Awaitable[None]]) -> None:
    """Receive all there is, and pass it on by the batch; also what came before it broke off."""
    batch: list[bytes] = []
    size = 0
    try:
        while chunk := await receive():
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH:
                full, batch, size = batch, [], 0
                await pass_on(full)
    finally:
        if batch:
            await pass_on(batch)


async def _in_repository(repository: str, work: Awaitable[T]) -> T:
    try:
        return await work
    except NoRepository:
        raise OCIError("NAME_UNKNOWN", f"there is no repository {repository} here (any more)") from None


def _unknown() -> OCIError:
    return OCIError(
        "BLOB_UPLOAD_UNKNOWN", "no such upload here: it has ended, or is another's; begin it again"
    )


def _no_room(error: OSError) -> Exception:
    if error.errno not in OUT_OF_SPACE:
        return error
    return OCIError(
        "UNAVAILABLE",
        "there is no room for what is pushed; delete images, or wait until somebody has made room",
        headers=(("Retry-After", "60"),),
    )
