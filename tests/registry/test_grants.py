from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import ANONYMOUS, Principal, Right, Rule
from cacheproxy.registry.grants import LOOK_EVERY, Grants, Standing
from cacheproxy.store.database import Database
from cacheproxy.store.errors import StoreBusy
from cacheproxy.store.grants import GrantRow, GrantRows
from cacheproxy.store.sqlite import SQLite
from tests.virtual import clock as clock

ALICE = Principal("user:alice", frozenset({"ci"}))
PULL = frozenset({Right.PULL})


def grants_of(database: Database) -> Grants:
    return Grants(GrantRows(database), lambda: 5.0)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield database


async def test_a_grant_is_in_force_at_once_and_until_it_is_removed(database: Database) -> None:
    grants = grants_of(database)
    standing = Standing([], grants)
    era = standing.era
    number = await grants.add(["group:ci"], ["pull"], ["team/**"])
    assert standing.rules.rights(ALICE, "team/app") == PULL
    assert standing.era > era
    era = standing.era
    await grants.remove(number)
    assert standing.rules.rights(ALICE, "team/app") == frozenset()
    assert standing.era > era


async def test_grants_of_the_file_and_of_the_rows_add_up_and_one_denial_is_enough(database: Database) -> None:
    grants = grants_of(database)
    declared = Rule(frozenset({"*"}), PULL, Patterns("**"))
    standing = Standing([declared], grants)
    await grants.add(["user:alice"], ["push", "delete"], ["**"])
    await grants.add(["*"], ["delete", "pull"], ["kept/**"], deny=True)
    assert standing.rules.rights(ALICE, "a") == {Right.PULL, Right.PUSH, Right.DELETE}
    assert standing.rules.rights(ALICE, "kept/a") == {Right.PUSH}


async def test_others_hear_of_it_at_their_next_look_or_when_told(
    database: Database, clock: MockClock
) -> None:
    here, there = grants_of(database), grants_of(database)
    standing = Standing([], there)
    async with trio.open_nursery() as nursery:
        await there.look()
        nursery.start_soon(there.run)
        await trio.testing.wait_all_tasks_blocked()
        number = await here.add(["*"], ["pull"], ["**"])
        assert standing.rules.rights(ALICE, "a") == frozenset()
        with trio.fail_after(LOOK_EVERY + 1):
            while standing.rules.rights(ALICE, "a") != PULL:
                await trio.sleep(0.5)
        began = trio.current_time()
        await here.remove(number)
        there.heard()
        with trio.fail_after(LOOK_EVERY / 2):
            while standing.rules.rights(ALICE, "a"):
                await trio.sleep(0.1)
        assert trio.current_time() - began < LOOK_EVERY / 2
        nursery.cancel_scope.cancel()


async def test_while_rows_cannot_be_read_the_former_ones_hold(database: Database, clock: MockClock) -> None:
    grants = grants_of(database)
    await grants.add(["*"], ["pull"], ["**"])

    async def fails() -> list[GrantRow]:
        raise StoreBusy("away")

    real = grants._rows.all
    grants._rows.all = fails  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grants.run)
        await trio.sleep(3 * LOOK_EVERY)
        assert len(grants.rules) == 1
        grants._rows.all = real  # type: ignore[method-assign]
        await grants._rows.remove(grants.known[0].id)
        with trio.fail_after(2 * LOOK_EVERY):
            while grants.rules:
                await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_where_nobody_ever_looked_nothing_is_read(database: Database, clock: MockClock) -> None:
    grants = grants_of(database)
    await grants._rows.add(GrantRow(0, ("*",), ("pull",), False, ("**",), (), 1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grants.run)
        await trio.sleep(3 * LOOK_EVERY)
        assert grants.rules == ()
        nursery.cancel_scope.cancel()


async def test_a_look_that_finds_the_same_forgets_nobody(database: Database) -> None:
    grants = grants_of(database)
    await grants.add(["*"], ["pull"], ["**"])
    era = grants.era
    await grants.look()
    assert grants.era == era


async def test_who_gives_no_name_can_be_let_in_from_a_network_to_read(database: Database) -> None:
    grants = grants_of(database)
    await grants.add([ANONYMOUS], ["pull", "list"], ["public/**"], ["10.0.0.0/8"])
    assert Standing([], grants).rules.rights(None, "public/a") == {Right.PULL, Right.LIST}


GOOD: dict[str, Any] = {"to": ["*"], "rights": ["pull"], "repositories": ["**"], "networks": ["10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"to": []}, "for nobody"),
        ({"to": ["alice"]}, "nobody's name"),
        ({"to": ["user:"]}, "nobody's name"),
        ({"to": ["user:a\n"]}, "nobody's name"),
        ({"rights": []}, "of nothing"),
        ({"rights": ["Pull"]}, "no right"),
        ({"rights": ["*"]}, "no right"),
        ({"repositories": []}, "no repository"),
        ({"repositories": ["te am"]}, "not a pattern"),
        ({"repositories": ["../x y"]}, "not a pattern"),
        ({"networks": ["10.0.0.1/8"]}, "not a network"),
        ({"networks": ["here"]}, "not a network"),
        ({"to": [ANONYMOUS], "networks": []}, "from networks only"),
        ({"to": [ANONYMOUS], "rights": ["pull", "push"]}, "nobody writes without a name"),
    ],
)
async def test_what_means_nothing_is_refused_and_nothing_is_kept(
    database: Database, wrong: dict[str, Any], said: str
) -> None:
    grants = grants_of(database)
    with pytest.raises(OCIError, match=said) as refused:
        await grants.add(**{**GOOD, **wrong})
    assert refused.value.status == 400
    assert await GrantRows(database).all() == []


async def test_only_what_is_there_is_removed(database: Database) -> None:
    with pytest.raises(OCIError) as refused:
        await grants_of(database).remove(7)
    assert refused.value.status == 404
