from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.registry.keys import FORGOTTEN, KNOWN_AFTER, LOOK_EVERY, ROTATED, SigningKeys
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.tokens import TokenRows
from tests.virtual import clock as clock


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def rows(tmp_path: Path) -> AsyncIterator[TokenRows]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield TokenRows(database)


async def test_all_nodes_sign_with_one_key_and_a_restart_keeps_it(rows: TokenRows) -> None:
    kids = set()
    for _ in range(3):
        keys = SigningKeys(rows, Clock())
        await keys.look()
        kids.add(keys.current.kid)
    assert len(kids) == 1


async def test_a_new_key_signs_once_all_nodes_know_it_and_the_old_one_is_believed_on(rows: TokenRows) -> None:
    wall = Clock()
    keys = SigningKeys(rows, wall)
    await keys.look()
    old = keys.current.kid
    wall.now += ROTATED + 1
    await keys.look()
    assert keys.current.kid == old
    wall.now += KNOWN_AFTER
    await keys.look()
    assert keys.current.kid not in (old, None)
    assert keys.find(str(old)) is not None


async def test_an_old_key_is_forgotten(rows: TokenRows) -> None:
    wall = Clock()
    keys = SigningKeys(rows, wall)
    await keys.look()
    old = str(keys.current.kid)
    wall.now += ROTATED + 1
    await keys.look()
    wall.now += FORGOTTEN - ROTATED
    await keys.look()
    assert keys.find(old) is None
    assert keys.current.kid != old


async def test_the_rows_are_looked_at_every_hour(rows: TokenRows, clock: MockClock) -> None:
    wall = Clock()
    here, there = SigningKeys(rows, wall), SigningKeys(rows, wall)
    await here.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        wall.now += ROTATED + 1
        await there.look()
        (new,) = set(there._known) - set(here._known)
        assert here.find(new) is None
        await trio.sleep(LOOK_EVERY + 1)
        assert here.find(new) is not None
        nursery.cancel_scope.cancel()
