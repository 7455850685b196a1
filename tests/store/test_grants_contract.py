"""Grants that were made by command, on both databases."""

from __future__ import annotations

from cacheproxy.store.database import Database
from cacheproxy.store.grants import GrantRow, GrantRows

ROW = GrantRow(
    0, ("group:ci", "user:a"), ("pull", "push"), False, ("team/**", "!team/x"), ("10.0.0.0/8",), 5.0
)


async def test_a_grant_is_there_until_it_is_removed(database: Database) -> None:
    rows = GrantRows(database)
    number = await rows.add(ROW)
    assert await rows.all() == [ROW._replace(id=number)]
    assert await rows.remove(number)
    assert await rows.all() == []
    assert not await rows.remove(number)


async def test_all_are_listed_in_the_order_of_their_numbers(database: Database) -> None:
    rows = GrantRows(database)
    denied = ROW._replace(deny=True, networks=())
    numbers = [await rows.add(row) for row in (ROW, denied)]
    assert await rows.all() == [
        ROW._replace(id=numbers[0]),
        denied._replace(id=numbers[1]),
    ]
    assert numbers == sorted(set(numbers))
