"""What other daemons change in the rows, heard by LISTEN: what is kept in memory does not outlive it.

The database itself notifies, by triggers: no write can forget to. Each transaction that moves a tag or takes
a tag or an image away, or gives a hosted repository its name, notifies once, when it commits; so does each
that changes an account, or a grant, by a word of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import structlog
import trio

from cacheproxy.store.database import Memory
from cacheproxy.store.postgres_connection import Connection, connect, told

log = structlog.get_logger()

AGAIN_SECONDS = 1.0
"""Between two tries to listen. Meanwhile rows are read, which costs time but is never wrong."""

BEAT_SECONDS = 5.0
BEAT_LIMIT = 5.0
"""A silent connection is asked whether it lives, and has so long to answer: when the network between us and
the server is cut, what is kept in memory is believed for their sum at most."""

_MARK = "cacheproxy_changed"
"""Of the channel, the function and the triggers."""

_RIGHTS = "rights"
"""What is said of a change to accounts or grants; nothing is said of all others."""

_THERE = """
SELECT count(*) FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE starts_with(tgname, %s) AND relnamespace = current_schema()::regnamespace
"""

_TRIGGERS = f"""
CREATE OR REPLACE FUNCTION {_MARK}() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_notify(''{_MARK}'', coalesce(TG_ARGV[0], '''')); RETURN NULL; END';
DROP TRIGGER IF EXISTS {_MARK} ON tag;
DROP TRIGGER IF EXISTS {_MARK}_tag ON tag;
DROP TRIGGER IF EXISTS {_MARK}_image ON image;
CREATE TRIGGER {_MARK} AFTER UPDATE OF digest ON tag FOR EACH ROW
    WHEN (OLD.digest IS DISTINCT FROM NEW.digest) EXECUTE FUNCTION {_MARK}();
CREATE TRIGGER {_MARK}_tag AFTER DELETE ON tag FOR EACH ROW EXECUTE FUNCTION {_MARK}();
CREATE TRIGGER {_MARK}_image AFTER DELETE ON image FOR EACH ROW EXECUTE FUNCTION {_MARK}();
DROP TRIGGER IF EXISTS {_MARK}_name ON repository;
CREATE TRIGGER {_MARK}_name AFTER UPDATE OF name ON repository FOR EACH ROW EXECUTE FUNCTION {_MARK}();
DROP TRIGGER IF EXISTS {_MARK} ON repository;
CREATE TRIGGER {_MARK} AFTER INSERT ON repository FOR EACH ROW
    WHEN (NEW.kind = 'hosted') EXECUTE FUNCTION {_MARK}();
DROP TRIGGER IF EXISTS {_MARK} ON account;
DROP TRIGGER IF EXISTS {_MARK} ON access_grant;
CREATE TRIGGER {_MARK} AFTER UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION {_MARK}('{_RIGHTS}');
DROP TRIGGER IF EXISTS {_MARK} ON access_key;
CREATE TRIGGER {_MARK} AFTER UPDATE OR DELETE ON access_key
    FOR EACH ROW EXECUTE FUNCTION {_MARK}('{_RIGHTS}');
CREATE TRIGGER {_MARK} AFTER INSERT OR UPDATE OR DELETE ON access_grant
    FOR EACH ROW EXECUTE FUNCTION {_MARK}('{_RIGHTS}');
"""


def notify_of_changes(connection: Connection) -> None:
    """In a transaction of the caller's, who alone changes the schema."""
    if connection.execute(_THERE, (_MARK,)).fetchone() != (_TRIGGERS.count("CREATE TRIGGER"),):
        connection.execute(_TRIGGERS)


async def follow(
    parameters: dict[str, Any],
    memory: Memory,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled. `started` once `memory` is in no danger of being believed."""
    memory.distrust()
    task_status.started()
    told_of = ""
    while True:
        try:
            async with _listening(parameters) as connection:
                memory.trust()
                if told_of:
                    log.info("changes by other daemons are heard again")
                told_of = ""
                await _hear(connection, memory)
        except (psycopg.Error, trio.TooSlowError) as error:
            memory.distrust()
            problem = told(error) if isinstance(error, psycopg.Error) else "no answer"
            if not told_of:
                log.warning(
                    "changes by other daemons are not heard: all is read from the rows", error=problem
                )
            told_of = problem
        await trio.sleep(AGAIN_SECONDS)


@asynccontextmanager
async def _listening(parameters: dict[str, Any]) -> AsyncIterator[Connection]:
    connection = await trio.to_thread.run_sync(_listen, parameters)
    try:
        yield connection
    finally:
        connection.close()


def _listen(parameters: dict[str, Any]) -> Connection:
    connection = connect(parameters)
    try:
        connection.execute(f"LISTEN {_MARK}")
    except BaseException:
        connection.close()
        raise
    return connection


async def _hear(connection: Connection, memory: Memory) -> None:
    """By libpq's own calls, none of which waits: no thread is needed, and a cancellation ends it at once."""
    libpq = connection.pgconn
    while True:
        with trio.move_on_after(BEAT_SECONDS) as waiting:
            await trio.lowlevel.wait_readable(libpq.socket)
        if waiting.cancelled_caught:
            await _beat(connection)
        else:
            libpq.consume_input()
        heard = set()
        while (notice := libpq.notifies()) is not None:
            heard.add(notice.extra.decode())
        if _RIGHTS in heard:
            memory.doubt()
        if heard - {_RIGHTS}:
            memory.clear()


async def _beat(connection: Connection) -> None:
    """Raises psycopg.Error and TooSlowError when the server is not there any more."""
    libpq = connection.pgconn
    libpq.send_query(b"SELECT 1")
    with trio.fail_after(BEAT_LIMIT):
        while libpq.is_busy():
            await trio.lowlevel.wait_readable(libpq.socket)
            libpq.consume_input()
    while libpq.get_result() is not None:
        pass
