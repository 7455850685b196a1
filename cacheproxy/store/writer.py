"""One thread writes, with group commit: what is queued while a sync is under way shares the next one."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import apsw
import structlog
import trio

from cacheproxy.store.connection import SQLiteTx, meaning
from cacheproxy.store.database import Tx
from cacheproxy.store.errors import StoreBusy, StoreFull, StoreSuspect

T = TypeVar("T")

log = structlog.get_logger()

BATCH = 256
"""Jobs of one commit: past that, those at its front wait longer than the shared sync saves."""

CHECKPOINT_PAGES = 1_000
"""Pages in the write-ahead log (4 KiB each) from which it is moved into the file: SQLite's own default."""

CLOSE_SECONDS = 30.0
"""How long the last commits may take before the disk is given up."""

_WHOLE = (StoreSuspect, StoreFull, StoreBusy)
"""What fails a transaction as a whole, whichever job met it."""


class _Job:
    __slots__ = ("done", "error", "fn", "result")

    def __init__(self, fn: Callable[[Tx], Any]) -> None:
        self.fn = fn
        self.done = trio.Event()
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Owns the connection that writes. Made, used and closed in a trio task."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._tx = SQLiteTx(connection)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = trio.lowlevel.current_trio_token()
        self.suspect: StoreSuspect | None = None
        """Why nothing is written any more; None: all is well."""
        self._log_pages = 0
        self._closed = False
        connection.set_wal_hook(self._note_log)
        self._thread = threading.Thread(target=self._work, name="cacheproxy-writer", daemon=True)
        self._thread.start()

    async def run(self, fn: Callable[[Tx], T]) -> T:
        """`fn`'s result, once it is durable. Cancelled while waiting, `fn` may still be run and committed.

        Raises what `fn` raised, or why the commit failed: nothing of it was written then.
        """
        if self._closed:
            raise StoreSuspect(errno.ESHUTDOWN, "the database is closed")
        job = _Job(fn)
        self._queue.put(job)
        await job.done.wait()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    async def aclose(self) -> None:
        """Commit what is queued and close the connection, even when cancelled.

        Raises StoreSuspect when the disk does not answer within CLOSE_SECONDS.
        """
        self._closed = True
        self._queue.put(None)
        with trio.CancelScope(
            shield=True
        ):  # the join has a limit; a limiter of its own, that nobody else fills
            await trio.to_thread.run_sync(self._thread.join, CLOSE_SECONDS, limiter=trio.CapacityLimiter(1))
        if self._thread.is_alive():
            raise StoreSuspect(errno.ETIMEDOUT, "the last commits did not end")

    # In the thread.

    def _work(self) -> None:
        try:
            while (job := self._queue.get()) is not None:
                jobs = self._batch(job)
                self._settle(jobs)
                self._deliver(jobs)
                self._move_log()
        finally:
            with suppress(apsw.Error):
                self._connection.close()

    def _batch(self, first: _Job) -> list[_Job]:
        jobs = [first]
        with suppress(queue.Empty):
            while len(jobs) < BATCH:
                job = self._queue.get_nowait()
                if job is None:
                    self._queue.put(None)  # the end, again, for `_work`
                    break
                jobs.append(job)
        return jobs

    def _settle(self, jobs: list[_Job]) -> None:
        """Give every job a result or an error; a result only for what is committed."""
        try:
            if self.suspect is not None:
                raise self.suspect
            self._commit(jobs)
        except BaseException as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
            if isinstance(error, StoreSuspect) and self.suspect is None:
                self.suspect = error
                log.critical("database suspect, no more writing until a restart", error=str(error))
            with suppress(apsw.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            for job in jobs:
                job.error = _own(error)

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._attempt(job)
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            raise meaning(error) from error

    def _attempt(self, job: _Job) -> None:
        """One job in a savepoint of its own: its failure takes back its own writes only."""
        self._connection.execute("SAVEPOINT job")
        try:
            job.result = job.fn(self._tx)
        except _WHOLE:
            raise
        except Exception as error:  # noqa: BLE001 - it is its caller's
            self._connection.execute("ROLLBACK TO job")
            job.error = error
        self._connection.execute("RELEASE job")

    def _deliver(self, jobs: list[_Job]) -> None:
        with suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._loop.run_sync_soon(_set, [job.done for job in jobs])

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _move_log(self) -> None:
        """Move the log into the file, once those who wait have heard; SQLite would do it in their commit."""
        if self._log_pages < CHECKPOINT_PAGES or self.suspect is not None:
            return
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            failure = meaning(error)
            # What stays in the log is safe there; only a disk that fails is news.
            if isinstance(failure, StoreSuspect):
                self.suspect = failure
                log.critical("database suspect, no more writing until a restart", error=str(failure))


def _own(error: BaseException) -> BaseException:
    """An error that many will raise, for one of them: an exception's traceback grows where it is raised."""
    if not isinstance(error, OSError):
        return error
    own = type(error)(*error.args)
    own.__cause__ = error
    return own


def _set(events: list[trio.Event]) -> None:
    for event in events:
        event.set()
