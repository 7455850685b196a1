from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal
from cacheproxy.registry.access_keys import AccessKeys, Proof
from cacheproxy.registry.accounts import Account, Accounts
from cacheproxy.registry.issued import Issued
from cacheproxy.registry.sealing import SealedElsewhere
from cacheproxy.store.access_keys import AccessKeyRow, AccessKeyRows
from cacheproxy.store.accounts import AccountRows
from cacheproxy.store.sqlite import SQLite
from tests.registry.test_sealing import OTHER, sealing

GROUPS = frozenset({"platform"})
DECLARED = "AKIAEXAMPLE000000001"


class House:
    def __init__(self, database: SQLite) -> None:
        self.now = 1000.0
        self.changes = 0
        self.rows = AccessKeyRows(database)
        self.issued = Issued(AccountRows(database), lambda: self.now)
        self.accounts = Accounts(
            [Account("alice", "secret", GROUPS, (DECLARED, "declared secret")), Account("bob", "other")],
            issued=self.issued,
        )
        self.keys = self.made(self.accounts)

    def made(self, accounts: Accounts, key: str | None = None) -> AccessKeys:
        seal = sealing() if key is None else sealing(key)
        return AccessKeys(self.rows, accounts, seal, lambda: self.now, self._changed)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield House(database)


async def test_a_pair_has_awss_form_and_proves_its_account(house: House) -> None:
    key_id, secret = await house.keys.add("alice")
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key_id)
    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", secret)
    assert await house.keys.find(key_id) == Proof(Principal("user:alice", GROUPS), secret)


async def test_the_configurations_pair_proves_its_account(house: House) -> None:
    found = await house.keys.find(DECLARED)
    assert found == Proof(Principal("user:alice", GROUPS), "declared secret")
    assert "secret" not in repr(found)


async def test_each_pair_is_another_and_an_account_may_have_several(house: House) -> None:
    pairs = {await house.keys.add("bob") for _ in range(5)}
    assert len({key_id for key_id, _ in pairs}) == len({secret for _, secret in pairs}) == 5
    assert [listed.account for listed in await house.keys.all()] == ["user:alice", *["user:bob"] * 5]


@pytest.mark.parametrize(
    "key_id", ["", "AKIA", DECLARED.lower(), DECLARED + "1", "x" * 129, "AKIA\0", "ä" * 20]
)
async def test_what_is_no_id_is_nobodys(house: House, key_id: str) -> None:
    assert await house.keys.find(key_id) is None


async def test_the_secret_is_not_in_the_database_in_clear(house: House) -> None:
    key_id, secret = await house.keys.add("alice")
    row = await house.rows.find(key_id)
    assert row is not None
    assert secret.encode() not in row.secret
    assert "secret" not in {field for listed in await house.keys.all() for field in listed.__slots__}


async def test_a_revoked_pair_proves_nothing(house: House) -> None:
    key_id, _ = await house.keys.add("alice")
    await house.keys.revoke(key_id)
    assert await house.keys.find(key_id) is None
    assert house.changes == 1
    with pytest.raises(OCIError) as refused:
        await house.keys.revoke(key_id)
    assert refused.value.status == 404


async def test_the_configurations_pair_is_not_revoked_by_command(house: House) -> None:
    with pytest.raises(OCIError, match=r"\[\[account\]\]") as refused:
        await house.keys.revoke(DECLARED)
    assert refused.value.status == 409
    assert await house.keys.find(DECLARED) is not None


async def test_there_is_no_pair_for_nobody(house: House) -> None:
    for name in ("nobody", "user:alice", ""):
        with pytest.raises(OCIError) as refused:
            await house.keys.add(name)
        assert refused.value.status == 404


async def test_a_pair_ends_with_its_account_and_is_not_the_next_ones(house: House) -> None:
    await house.issued.add("robot", ["ci"], None)
    key_id, _ = await house.keys.add("robot")
    assert (await house.keys.find(key_id)) is not None
    await house.issued.revoke("robot")
    assert await house.keys.find(key_id) is None
    await house.issued.add("robot", [], None)
    assert await house.keys.find(key_id) is None


async def test_a_pair_is_of_its_account_as_it_is_now(house: House) -> None:
    key_id, secret = await house.keys.add("bob")
    moved = house.made(Accounts([Account("bob", "new secret", frozenset({"admins"}))]))
    assert await moved.find(key_id) == Proof(Principal("user:bob", frozenset({"admins"})), secret)
    assert await house.made(Accounts([])).find(key_id) is None


async def test_a_pair_ends_with_the_time_of_its_account(house: House) -> None:
    await house.issued.add("robot", [], 60.0)
    key_id, _ = await house.keys.add("robot")
    house.now += 60
    assert await house.keys.find(key_id) is None


async def test_a_row_that_was_given_to_another_account_does_not_open(house: House) -> None:
    key_id, _ = await house.keys.add("bob")
    row = await house.rows.find(key_id)
    assert row is not None
    await house.rows.remove(key_id)
    await house.rows.add(row._replace(principal="user:alice"))
    with pytest.raises(SealedElsewhere):
        await house.keys.find(key_id)


async def test_another_key_opens_no_secret(house: House) -> None:
    key_id, _ = await house.keys.add("bob")
    with pytest.raises(SealedElsewhere):
        await house.made(house.accounts, OTHER).find(key_id)


@pytest.mark.parametrize("secret", [b"", b"\x00", b"in clear", b"\x01" * 80, b"\x01", b"\xff" * 37])
async def test_a_planted_row_proves_nothing(house: House, secret: bytes) -> None:
    await house.rows.add(AccessKeyRow("AKIAPLANTED", "user:alice", secret, 1.0))
    with pytest.raises(SealedElsewhere):
        await house.keys.find("AKIAPLANTED")
