"""Access keys that were made by command, on both databases."""

from __future__ import annotations

from cacheproxy.store.access_keys import AccessKeyRow, AccessKeyRows
from cacheproxy.store.accounts import AccountRow, AccountRows
from cacheproxy.store.database import Database
from cacheproxy.store.tokens import TokenRows
from tests.store.test_tokens_contract import key

ROW = AccessKeyRow("AKIA1", "user:robot", b"\x01\x00\xff", 5.0)
ROBOT = AccountRow("robot", bytes(32), (), 1.0, 10.0)


async def test_a_pair_is_there_until_it_is_removed(database: Database) -> None:
    rows = AccessKeyRows(database)
    assert await rows.add(ROW)
    assert not await rows.add(ROW._replace(principal="user:other"))
    assert await rows.find("AKIA1") == ROW
    assert await rows.remove("AKIA1")
    assert await rows.find("AKIA1") is None
    assert not await rows.remove("AKIA1")


async def test_all_are_listed_by_account_and_age(database: Database) -> None:
    rows = AccessKeyRows(database)
    others = ROW._replace(id="AKIA2", created=4.0), ROW._replace(id="AKIA0", principal="user:a")
    for row in (ROW, *others):
        await rows.add(row)
    assert await rows.all() == [others[1], others[0], ROW]


async def test_they_go_with_the_account_that_is_removed_and_no_others_do(database: Database) -> None:
    rows, accounts = AccessKeyRows(database), AccountRows(database)
    other = ROW._replace(id="AKIA2", principal="user:robot2")
    for row in (ROW, other):
        await rows.add(row)
    assert not await accounts.remove("robot")
    assert len(await rows.all()) == 2
    await accounts.add(ROBOT)
    assert await accounts.remove("robot")
    assert await rows.all() == [other]


async def test_they_go_with_the_account_that_is_forgotten(database: Database) -> None:
    rows, accounts = AccessKeyRows(database), AccountRows(database)
    await rows.add(ROW)
    await accounts.add(ROBOT)
    await accounts.forget(10.0)
    assert await rows.all() == [ROW]
    await accounts.forget(11.0)
    assert await rows.all() == []


async def test_what_was_sealed_with_a_lost_key_goes_at_once(database: Database) -> None:
    rows, tokens = AccessKeyRows(database), TokenRows(database)
    await rows.add(ROW)
    await tokens.keys(key("a", 1.0), 0.0, 0.0)
    assert await tokens.forget_sealed() == 2
    assert await rows.all() == []
    assert await tokens.forget_sealed() == 0
