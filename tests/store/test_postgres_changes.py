from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from cacheproxy.core.settings import Settings
from cacheproxy.store import postgres_changes
from cacheproxy.store.accounts import AccountRow, AccountRows
from cacheproxy.store.database import Tx
from cacheproxy.store.grants import GrantRow, GrantRows
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.postgres import Postgres
from cacheproxy.store.records import Records
from tests.postgres import server
from tests.store.images import REPOSITORY, image, record

LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"


class Told:
    """A Memory that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def clear(self) -> None:
        self.calls.append("clear")

    def doubt(self) -> None:
        self.calls.append("doubt")

    def trust(self) -> None:
        self.calls.append("trust")

    def distrust(self) -> None:
        self.calls.append("distrust")

    async def hear(self, *calls: str) -> None:
        """Wait for just these, and that no more come; they are forgotten then."""
        with trio.fail_after(20):
            while len(self.calls) < len(calls):
                await trio.sleep(0.005)
        await trio.sleep(0.02)
        assert self.calls == list(calls)
        self.calls.clear()


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[tuple[Postgres, Told]]:
    told = Told()
    async with Postgres.open(url) as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch, told)
        assert told.calls == ["distrust"]
        await told.hear("distrust", "trust")
        yield database, told
        nursery.cancel_scope.cancel()


def sql(text: str) -> Callable[[Tx], None]:
    return lambda tx: tx.run(text)


async def test_moved_tag_is_heard_once_by_every_daemon(postgres_url: str) -> None:
    async with watched(postgres_url) as (database, told), watched(postgres_url) as (_, told_elsewhere):
        records = Records(database)
        await record(records, image(), "latest", now=1.0)
        await record(records, image(), "other", now=2.0)
        await told.hear()  # what was not there cannot have been in memory
        await record(records, image(note="moved"), "latest", now=3.0)
        await told.hear("clear")
        await told_elsewhere.hear("clear")


async def test_tag_that_was_only_checked_is_not_heard(postgres_url: str) -> None:
    async with watched(postgres_url) as (database, told):
        records = Records(database)
        await record(records, image(), "latest", now=1.0)
        await record(records, image(), "latest", now=2.0)
        await records.record_checked(REPOSITORY, "latest", 3.0, None)
        await told.hear()


@pytest.mark.parametrize(
    "forget", [("DELETE FROM tag",), ("DELETE FROM tag", "DELETE FROM reference", "DELETE FROM image")]
)
async def test_what_is_forgotten_is_heard_once_a_transaction(
    postgres_url: str, forget: tuple[str, ...]
) -> None:
    async with watched(postgres_url) as (database, told):
        for n in range(3):
            await record(Records(database), image(note=f"{n}"), f"tag-{n}")

        def at_once(tx: Tx) -> None:
            for text in forget:
                tx.run(text)

        await database.write(at_once)
        await told.hear("clear")


async def test_a_name_that_comes_to_mean_something_else_is_heard(postgres_url: str) -> None:
    async with watched(postgres_url) as (database, told):
        await record(Records(database), image(), "latest")
        await told.hear()  # a cached repository is made by whoever asks for it
        hosted = Hosted(database)
        await hosted.create("app", Settings(), 1.0)
        await told.hear("clear")
        await hosted.rename("app", "other", 2.0)
        await told.hear("clear")


async def test_a_schema_that_tells_of_fewer_changes_is_brought_up_to_date(postgres_url: str) -> None:
    async with Postgres.open(postgres_url) as database:
        await database.write(sql("DROP TRIGGER cacheproxy_changed ON repository"))
    async with watched(postgres_url) as (database, told):
        await Hosted(database).create("app", Settings(), 1.0)
        await told.hear("clear")


async def test_a_changed_account_or_grant_is_a_doubt_and_nothing_else(postgres_url: str) -> None:
    async with watched(postgres_url) as (database, told), watched(postgres_url) as (_, told_elsewhere):
        accounts, grants = AccountRows(database), GrantRows(database)
        await accounts.add(AccountRow("robot", bytes(32), (), 1.0, None))
        await told.hear()  # who is not there is not remembered

        async def hear() -> None:
            """One at a time: what comes together is one doubt."""
            await told.hear("doubt")
            await told_elsewhere.hear("doubt")

        await accounts.remove("robot")
        await hear()
        number = await grants.add(GrantRow(0, ("*",), ("pull",), False, ("**",), (), 1.0))
        await hear()
        await grants.remove(number)
        await hear()


async def test_what_is_rolled_back_is_not_heard(postgres_url: str) -> None:
    async with watched(postgres_url) as (database, told):
        await record(Records(database), image(), "latest")

        def fails(tx: Tx) -> None:
            tx.run("DELETE FROM tag")
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(fails)
        await told.hear()


async def test_silent_connection_is_asked_whether_it_lives(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_changes, "BEAT_SECONDS", 0.01)
    async with watched(postgres_url) as (database, told):
        await trio.sleep(0.1)
        await record(Records(database), image(), "latest")
        await database.write(sql("DELETE FROM tag"))
        await told.hear("clear")


async def test_connection_that_does_not_answer_is_not_believed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(postgres_url) as (_, told):
        monkeypatch.setattr(postgres_changes, "BEAT_SECONDS", 0.01)
        monkeypatch.setattr(postgres_changes, "BEAT_LIMIT", 0.0)
        monkeypatch.setattr(postgres_changes, "AGAIN_SECONDS", 60)
        server().run(f"SELECT pg_notify('{postgres_changes._MARK}', '')", postgres_url)
        await told.hear("clear", "distrust")


async def test_ended_connection_is_replaced_and_nothing_believed_meanwhile(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_changes, "AGAIN_SECONDS", 0.01)
    async with watched(postgres_url) as (database, told):
        server().run(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listening", postgres_url)
        await told.hear("distrust", "trust")
        await record(Records(database), image(), "latest")
        await database.write(sql("DELETE FROM tag"))
        await told.hear("clear")


async def test_server_that_is_away_is_waited_for(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_changes, "AGAIN_SECONDS", 0.01)
    async with watched(postgres_url) as (_, told):
        server().stop()
        try:
            await trio.sleep(0.1)
            assert set(told.calls) == {"distrust"}
            told.calls.clear()
        finally:
            server().start()
        with trio.fail_after(30):
            while "trust" not in told.calls:
                await trio.sleep(0.01)
        assert told.calls[-1] == "trust"
