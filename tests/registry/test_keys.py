from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from joserfc.jwk import ECKey
from trio.testing import MockClock

from cacheproxy.registry.keys import FORGOTTEN, KNOWN_AFTER, LOOK_EVERY, ROTATED, SigningKeys
from cacheproxy.registry.sealing import SealedElsewhere, is_clear
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.tokens import KeptKey, TokenRows
from tests.registry.test_sealing import OTHER, sealing
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
        keys = SigningKeys(rows, sealing(), Clock())
        await keys.look()
        kids.add(keys.current.kid)
    assert len(kids) == 1


async def test_a_new_key_signs_once_all_nodes_know_it_and_the_old_one_is_believed_on(rows: TokenRows) -> None:
    wall = Clock()
    keys = SigningKeys(rows, sealing(), wall)
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
    keys = SigningKeys(rows, sealing(), wall)
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
    here, there = SigningKeys(rows, sealing(), wall), SigningKeys(rows, sealing(), wall)
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


async def kept(rows: TokenRows) -> list[KeptKey]:
    return await rows.keys(KeptKey("none", b"", 0.0), 0.0, 0.0)


async def test_no_key_lies_in_the_database_in_clear(rows: TokenRows) -> None:
    await SigningKeys(rows, sealing(), Clock()).look()
    (key,) = await kept(rows)
    assert not is_clear(key.secret)
    with pytest.raises(ValueError):
        ECKey.import_key(key.secret)


async def test_another_key_opens_nothing_and_says_so(rows: TokenRows) -> None:
    await SigningKeys(rows, sealing(), Clock()).look()
    with pytest.raises(SealedElsewhere, match="signing_key"):
        await SigningKeys(rows, sealing(OTHER), Clock()).look()


async def test_keys_that_former_versions_left_in_clear_are_sealed_and_sign_on(rows: TokenRows) -> None:
    clear = ECKey.generate_key("P-256").as_der(private=True)
    await rows.keys(KeptKey("old", clear, 1000.0), 0.0, 0.0)
    for _ in range(2):
        keys = SigningKeys(rows, sealing(), Clock())
        await keys.look()
        assert keys.current.kid == "old"
        assert keys.current.as_der(private=True) == clear
        (key,) = await kept(rows)
        assert not is_clear(key.secret)


async def test_a_key_that_cannot_be_opened_later_is_told_and_the_known_ones_go_on(
    rows: TokenRows, clock: MockClock
) -> None:
    wall = Clock()
    keys = SigningKeys(rows, sealing(), wall)
    await keys.look()
    await rows.keys(KeptKey("strange", sealing(OTHER).close("signing_key strange", b""), 2000.0), 1500.0, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        await trio.sleep(2 * LOOK_EVERY)
        assert keys.current.kid not in (None, "strange")
        nursery.cancel_scope.cancel()
