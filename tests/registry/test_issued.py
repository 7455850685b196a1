from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal
from cacheproxy.registry.access_keys import AccessKeys
from cacheproxy.registry.accounts import Account, Accounts
from cacheproxy.registry.issued import KEPT, LOOK_EVERY, Issued
from cacheproxy.registry.passwords import Passwords
from cacheproxy.store.access_keys import AccessKeyRows
from cacheproxy.store.accounts import AccountRows
from cacheproxy.store.sqlite import SQLite
from tests.registry.test_sealing import sealing
from tests.virtual import clock as clock


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
async def issued(tmp_path: Path, wall: Clock) -> AsyncIterator[Issued]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield Issued(AccountRows(database), wall)


@pytest.fixture
def accounts(issued: Issued) -> Accounts:
    return Accounts([Account("alice", "secret")], issued=issued)


async def test_the_secret_proves_the_account_and_nothing_else_does(
    issued: Issued, accounts: Accounts
) -> None:
    secret = await issued.add("robot", ["ci"], None)
    robot = Principal("user:robot", frozenset({"ci"}))
    assert await accounts.login(Login("robot", secret), None) == robot
    assert await accounts.named("user:robot") == robot
    for login in (Login("robot", "secret"), Login("robot", ""), Login("alice", secret), Login("", secret)):
        assert await accounts.login(login, None) is None
    assert await accounts.named("ci:robot") is None


async def test_a_revoked_account_is_nobody_and_its_name_can_be_given_again(
    issued: Issued, accounts: Accounts
) -> None:
    secret = await issued.add("robot", [], None)
    proof = await accounts.proof("user:robot")
    await issued.revoke("robot")
    assert await accounts.login(Login("robot", secret), None) is None
    assert await accounts.named("user:robot") is None
    assert await accounts.proof("user:robot") is None
    assert await issued.add("robot", [], None) != secret
    assert await accounts.proof("user:robot") not in (None, proof)


async def test_an_account_ends_with_its_time(issued: Issued, accounts: Accounts, wall: Clock) -> None:
    secret = await issued.add("robot", [], 60.0)
    wall.now += 59
    assert await accounts.login(Login("robot", secret), None) is not None
    wall.now += 1
    assert await accounts.login(Login("robot", secret), None) is None
    assert await accounts.named("user:robot") is None
    assert [(each.name, each.expired) for each in await issued.all()] == [("robot", True)]


async def test_an_account_that_is_over_is_listed_for_a_month(
    issued: Issued, wall: Clock, clock: MockClock
) -> None:
    for name, seconds in (("over", 60.0), ("soon over", 61.0 + LOOK_EVERY), ("never", None)):
        await issued.add(name.replace(" ", "-"), [], seconds)
    async with trio.open_nursery() as nursery:
        wall.now += 60 + KEPT + 1
        nursery.start_soon(issued.run)
        with trio.fail_after(2 * LOOK_EVERY):
            while [each.name for each in await issued.all()] != ["never", "soon-over"]:
                await trio.sleep(10)
        wall.now += LOOK_EVERY + 1
        with trio.fail_after(2 * LOOK_EVERY):
            while [each.name for each in await issued.all()] != ["never"]:
                await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_the_accounts_of_others_are_in_doubt_when_one_is_revoked(tmp_path: Path, wall: Clock) -> None:
    changes: list[None] = []
    async with SQLite.open(tmp_path / "more.db") as database:
        issued = Issued(AccountRows(database), wall, lambda: changes.append(None))
        await issued.add("robot", [], None)
        assert changes == []
        await issued.revoke("robot")
        assert changes == [None]


async def test_what_the_configuration_says_of_a_name_counts(issued: Issued, accounts: Accounts) -> None:
    secret = await issued.add("alice", ["admins"], None)
    assert await accounts.login(Login("alice", secret), None) is None
    assert await accounts.login(Login("alice", "secret"), None) == Principal("user:alice")


async def test_who_is_not_among_them_may_have_a_password(issued: Issued, wall: Clock) -> None:
    hashed = b"$2b$04$" + b"a" * 53
    accounts = Accounts([], Passwords({"carol": hashed}, wall), issued)
    assert await accounts.named("user:carol") == Principal("user:carol")
    assert await accounts.proof("user:carol") == hashed
    assert await accounts.named("user:nobody") is None


async def test_a_revoked_accounts_secret_is_no_password(issued: Issued, wall: Clock) -> None:
    accounts = Accounts([], Passwords({"carol": b"$2b$04$" + b"a" * 53}, wall), issued)
    secret = await issued.add("robot", [], None)
    assert await accounts.login(Login("robot", secret), None) is not None
    await issued.revoke("robot")
    assert await accounts.login(Login("robot", secret), None) is None


async def test_access_keys_go_with_the_account_that_a_command_made(
    issued: Issued, accounts: Accounts, wall: Clock
) -> None:
    rows = AccessKeyRows(issued._rows._database)
    pairs = AccessKeys(rows, accounts, sealing(), wall)
    await issued.add("robot", [], None)
    await issued.add("brief", [], 60.0)
    for name in ("robot", "brief", "alice"):
        await pairs.add(name)
    await issued.revoke("robot")
    assert {each.account for each in await pairs.all()} == {"user:brief", "user:alice"}
    wall.now += 60 + KEPT + 1
    await issued._rows.forget(wall.now - KEPT)
    assert {each.account for each in await pairs.all()} == {"user:alice"}


async def test_a_taken_name_is_refused(issued: Issued) -> None:
    await issued.add("robot", [], None)
    with pytest.raises(OCIError, match="already") as refused:
        await issued.add("robot", [], None)
    assert refused.value.status == 409


@pytest.mark.parametrize("name", ["", "a:b", "-a", "a b", "a" * 129, "ä", "a\n"])
async def test_what_is_no_name_is_refused(issued: Issued, name: str) -> None:
    for refused in ((name, []), ("robot", [name])):
        with pytest.raises(OCIError) as caught:
            await issued.add(*refused, None)
        assert caught.value.status == 400


async def test_only_what_is_there_is_revoked(issued: Issued) -> None:
    with pytest.raises(OCIError) as refused:
        await issued.revoke("alice")
    assert refused.value.status == 404
