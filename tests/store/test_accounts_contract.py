"""Accounts that were made by command, on both databases."""

from __future__ import annotations

from cacheproxy.store.accounts import AccountRow, AccountRows
from cacheproxy.store.database import Database

ROBOT = AccountRow("robot", bytes(range(32)), ("ci", "team"), 100.0, None)


async def test_an_account_is_there_until_it_is_removed(database: Database) -> None:
    rows = AccountRows(database)
    assert await rows.add(ROBOT)
    assert await rows.find("robot") == ROBOT
    assert await rows.remove("robot")
    assert await rows.find("robot") is None
    assert not await rows.remove("robot")


async def test_a_name_is_taken_once(database: Database) -> None:
    rows = AccountRows(database)
    assert await rows.add(ROBOT)
    assert not await rows.add(ROBOT._replace(hash=bytes(32)))
    assert await rows.find("robot") == ROBOT


async def test_all_are_listed_by_name(database: Database) -> None:
    rows = AccountRows(database)
    other = ROBOT._replace(name="Other", groups=(), expires=200.0)
    for row in (ROBOT, other):
        await rows.add(row)
    assert await rows.all() == [other, ROBOT]


async def test_those_that_were_over_before_a_time_are_forgotten(database: Database) -> None:
    rows = AccountRows(database)
    for name, expires in (("a", 99.0), ("b", 100.0), ("c", None)):
        await rows.add(ROBOT._replace(name=name, expires=expires))
    await rows.forget(100.0)
    assert [row.name for row in await rows.all()] == ["b", "c"]
