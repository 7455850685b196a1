from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial as bind

import pytest
import trio

from cacheproxy.store import postgres
from cacheproxy.store.database import Tx
from cacheproxy.store.errors import CommitUnknown, DatabaseRefused, StoreBusy
from cacheproxy.store.postgres import Postgres
from cacheproxy.store.records import Records
from tests.postgres import Server, server
from tests.store.conftest import open_descriptors
from tests.store.images import LAYER_DIGEST, image, record

ADD = "INSERT INTO trash (path, not_before) VALUES (:path, 1)"
DIES = "SELECT pg_terminate_backend(pg_backend_pid())"
DIES_IN_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON trash DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION die()
"""


def add(path: str, tx: Tx) -> None:
    tx.run(ADD, path=path)


def paths(tx: Tx) -> list[str]:
    return [path for (path,) in tx.all("SELECT path FROM trash ORDER BY path")]


def backend(tx: Tx) -> int:
    row = tx.one("SELECT pg_backend_pid()")
    assert row is not None
    return int(row[0])


@pytest.fixture
def stopped(postgres_url: str) -> Iterator[Server]:
    """A server that may be stopped; it runs again afterwards."""
    yield server()
    server().start()


# Opening.


async def test_nodes_that_start_together_make_one_schema(postgres_url: str) -> None:
    async def start() -> None:
        async with Postgres.open(postgres_url) as database:
            assert await database.read(paths) == []

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)


async def test_names_are_compared_by_their_bytes(postgres_url: str) -> None:
    async with Postgres.open(postgres_url) as database:
        columns = await database.scan(
            lambda tx: tx.all(
                "SELECT collation_name FROM information_schema.columns"
                " WHERE table_schema = 'public' AND data_type = 'text'"
            )
        )
    assert len(columns) > 10
    assert set(columns) == {("C",)}


async def test_database_of_a_newer_version_is_refused(postgres_url: str) -> None:
    async with Postgres.open(postgres_url) as database:
        await database.write(
            lambda tx: tx.run("INSERT INTO migration (number, checksum) VALUES (99, 'of the future')")
        )
    with pytest.raises(DatabaseRefused, match="newer"):
        async with Postgres.open(postgres_url):
            pass


async def test_server_that_may_lose_what_it_committed_is_refused(postgres_url: str) -> None:
    server().run("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        with pytest.raises(DatabaseRefused, match=r"synchronous_commit = off.*set synchronous_commit = on"):
            async with Postgres.open(postgres_url):
                pass
    finally:
        server().run("ALTER ROLE postgres RESET synchronous_commit")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("/rows", "/nothing"), "does not exist"),
        (("postgres@", "nobody@"), "role .* does not exist"),
        (("host=", "host=%2Fnowhere&x="), "URL"),
        (("host=", "host=%2Fnowhere%2F"), "No such file"),
    ],
)
async def test_what_cannot_be_opened_is_told_in_one_line(
    postgres_url: str, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(DatabaseRefused, match=says) as raised:
        async with Postgres.open(postgres_url.replace(*change)):
            pass
    assert "\n" not in str(raised.value)


async def test_role_without_rights_is_refused(postgres_url: str) -> None:
    server().run("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(DatabaseRefused, match=r"permission denied for schema public$"):
            async with Postgres.open(postgres_url.replace("postgres@", "guest@")):
                pass
    finally:
        server().run("DROP ROLE guest")


async def test_end_leaves_no_descriptor(postgres_url: str) -> None:
    before = open_descriptors()
    async with Postgres.open(postgres_url) as database:
        await database.scan(paths)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(database.write, paths)
        assert open_descriptors() > before
    assert open_descriptors() == before


# Connections that end, and a server that is away.


async def test_connection_that_ended_while_it_waited_is_replaced(postgres_url: str) -> None:
    async with Postgres.open(postgres_url) as database:
        for way in (database.read, database.write, database.scan):
            pid = await way(backend)
            server().run(f"SELECT pg_terminate_backend({pid}, 1000)")
            assert await way(backend) != pid


async def test_connection_that_ends_before_the_commit_is_sent_has_written_nothing(postgres_url: str) -> None:
    tries = 0

    def dies_at_first(tx: Tx) -> None:
        nonlocal tries
        tries += 1
        tx.run(ADD, path=f"try {tries}")
        if tries == 1:
            tx.run(DIES)

    async with Postgres.open(postgres_url) as database:
        await database.write(dies_at_first)
        assert await database.read(paths) == ["try 2"]
        with pytest.raises(StoreBusy):
            await database.write(lambda tx: tx.run(DIES))


async def test_connection_that_ends_in_the_commit_leaves_it_unknown(postgres_url: str) -> None:
    async with Postgres.open(postgres_url) as database:
        server().run(DIES_IN_COMMIT, postgres_url)
        with pytest.raises(CommitUnknown):
            await database.write(lambda tx: tx.run(ADD, path="a"))
        assert await database.read(paths) == []


async def test_server_that_is_away_is_busy_and_used_again_when_it_is_back(
    postgres_url: str, stopped: Server
) -> None:
    async with Postgres.open(postgres_url) as database:
        await database.write(lambda tx: add("a", tx))
        stopped.stop()
        for way in (database.read, database.write, database.scan):
            with pytest.raises(StoreBusy):
                await way(paths)
        stopped.start()
        for way in (database.read, database.write, database.scan):
            assert await way(paths) == ["a"]


async def test_turn_is_not_waited_for_for_ever(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(postgres, "SCANS", 1)
    inside, go_on = threading.Event(), threading.Event()

    def long(tx: Tx) -> None:
        inside.set()
        assert go_on.wait(5)

    async with Postgres.open(postgres_url) as database, trio.open_nursery() as nursery:
        nursery.start_soon(database.scan, long)
        await trio.to_thread.run_sync(inside.wait, 5)
        with pytest.raises(StoreBusy, match="no connection was free"):
            await database.scan(paths)
        assert await database.read(paths) == []
        go_on.set()


# Transactions that meet.


async def test_transactions_that_met_are_as_one_after_the_other(postgres_url: str) -> None:
    """Each counts what is there and adds a row: in any order, no two count the same."""

    def count_and_add(tx: Tx) -> int:
        seen = len(paths(tx))
        tx.run(ADD, path=f"{threading.get_ident()}-{seen}")
        return seen

    seen: list[int] = []

    async def write() -> None:
        seen.append(await database.write(count_and_add))

    async with Postgres.open(postgres_url) as database:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(write)
        assert sorted(seen) == list(range(12))


async def test_transaction_that_meets_others_every_time_is_busy(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PAUSE", 0.0)
    tries = 0

    def always_meets(tx: Tx) -> None:
        nonlocal tries
        tries += 1
        tx.run("DO 'BEGIN RAISE SQLSTATE ''40001''; END'")

    async with Postgres.open(postgres_url) as database:
        with pytest.raises(StoreBusy):
            await database.write(always_meets)
    assert tries == postgres.TRIES + 1


async def test_scan_sees_one_state_of_all_tables_and_writes_nothing(postgres_url: str) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def twice(tx: Tx) -> tuple[list[str], list[str]]:
        first = paths(tx)
        inside.set()
        assert go_on.wait(5)
        return first, paths(tx)

    seen = []

    async def scan() -> None:
        seen.append(await database.scan(twice))

    async with Postgres.open(postgres_url) as database:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan)
            await trio.to_thread.run_sync(inside.wait, 5)
            await database.write(lambda tx: add("a", tx))
            go_on.set()
        assert seen == [([], [])]
        with pytest.raises(StoreBusy, match="read-only"):
            await database.scan(lambda tx: add("b", tx))


# Records over it.


@pytest.mark.parametrize("away", [False, True])
async def test_write_that_may_be_done_twice_is_done_again_when_its_end_is_unknown(
    postgres_url: str, stopped: Server, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """A server that is not back in time leaves it unknown: "nothing was written" would be a lie."""
    async with Postgres.open(postgres_url) as database:
        write, tries = database.write, 0

        async def ends_unknown_at_first(fn: Callable[[Tx], str | None]) -> str | None:
            nonlocal tries
            tries += 1
            result = await write(fn)
            if tries > 1:
                return result
            if away:
                stopped.stop()
            raise CommitUnknown(0, "the connection ended")

        monkeypatch.setattr(database, "write", ends_unknown_at_first)
        recorded = bind(Records(database).record_blob, LAYER_DIGEST, 5, "here", 7, 1.0)
        if away:
            with pytest.raises(CommitUnknown):
                await recorded()
            stopped.start()
        else:
            assert await recorded() is None
        row = await Records(database).any_blob(LAYER_DIGEST)
        assert row is not None
        assert (row.location, row.generation) == ("here", 7)


async def test_images_that_share_layers_are_all_recorded_however_their_transactions_meet(
    postgres_url: str,
) -> None:
    """What a transaction that is run again had prepared before it failed is prepared again."""
    images = [image(note=f"{n}") for n in range(150)]

    async def write(bodies: list[bytes]) -> None:
        for n, body in enumerate(bodies):
            await record(records, body, f"tag-{n % 3}")

    async with Postgres.open(postgres_url) as database:
        records = Records(database)
        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(write, images[n::6])
        assert await records.images() == len(images)


# Looking.


async def test_to_look_makes_nothing_and_takes_this_versions_schema(postgres_url: str) -> None:
    with pytest.raises(DatabaseRefused, match="is empty"):
        async with Postgres.look(postgres_url):
            pass
    async with Postgres.open(postgres_url) as database:
        async with Postgres.look(postgres_url) as rows:
            assert await rows.scan(paths) == []
            assert await rows.faults() == []
        await database.write(lambda tx: tx.run("DELETE FROM migration WHERE number = 3"))
        with pytest.raises(DatabaseRefused, match="start its daemon once"):
            async with Postgres.look(postgres_url):
                pass


async def test_promises_that_were_taken_back_are_faults(postgres_url: str) -> None:
    async with Postgres.open(postgres_url):
        pass
    async with Postgres.look(f"{postgres_url}&options=-csynchronous_commit%3Doff") as rows:
        (fault,) = await rows.faults()
    assert "set synchronous_commit = on" in fault
