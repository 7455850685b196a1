"""What the token server remembers, on both databases."""

from __future__ import annotations

import pytest
import trio

from cacheproxy.store.database import Database
from cacheproxy.store.tokens import KeptKey, TokenRows


def key(kid: str, created: float) -> KeptKey:
    return KeptKey(kid, kid.encode() + b"\x00\xff", created)


async def test_the_first_key_stays_until_it_is_old(database: Database) -> None:
    rows = TokenRows(database)
    first = key("a", 100.0)
    assert await rows.keys(first, 0.0, 0.0) == [first]
    assert await rows.keys(key("b", 200.0), 50.0, 0.0) == [first]
    assert await rows.keys(key("c", 300.0), 150.0, 0.0) == [first, key("c", 300.0)]


async def test_of_keys_brought_at_once_one_is_kept(database: Database) -> None:
    rows = TokenRows(database)
    seen: list[list[KeptKey]] = []

    async def bring(kid: str) -> None:
        seen.append(await rows.keys(key(kid, 100.0), 50.0, 0.0))

    async with trio.open_nursery() as nursery:
        for kid in "abcd":
            nursery.start_soon(bring, kid)
    assert len({kept[0].kid for kept in seen}) == 1
    assert {len(kept) for kept in seen} == {1}


async def test_a_key_gets_other_bytes_if_it_has_those_it_had(database: Database) -> None:
    rows = TokenRows(database)
    first = key("a", 100.0)
    await rows.keys(first, 0.0, 0.0)
    sealed = first._replace(secret=b"sealed")
    await rows.replace([(sealed._replace(secret=b"other"), b"not what it had"), (sealed, first.secret)])
    assert await rows.keys(first, 0.0, 0.0) == [sealed]


async def test_too_old_keys_go(database: Database) -> None:
    rows = TokenRows(database)
    await rows.keys(key("a", 100.0), 0.0, 0.0)
    assert await rows.keys(key("b", 200.0), 150.0, 150.0) == [key("b", 200.0)]
    assert await rows.keys(key("c", 300.0), 0.0, 0.0) == [key("b", 200.0)]


async def test_a_refresh_token_has_an_owner_until_it_ends(database: Database) -> None:
    rows = TokenRows(database)
    await rows.remember("ab", "user:alice", 100.0, 0.0)
    assert await rows.whose("ab", 99.0) == "user:alice"
    assert await rows.whose("ab", 100.0) is None
    assert await rows.whose("cd", 0.0) is None


async def test_what_is_over_goes_when_another_comes(database: Database) -> None:
    rows = TokenRows(database)
    await rows.remember("ab", "user:alice", 100.0, 0.0)
    await rows.remember("cd", "user:bob", 300.0, 200.0)
    left = await database.read(lambda tx: tx.all("SELECT hash FROM refresh_token ORDER BY hash"))
    assert left == [("cd",)]


async def test_of_too_many_the_oldest_go_and_only_of_that_principal(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacheproxy.store.tokens.MOST", 3)
    rows = TokenRows(database)
    await rows.remember("other", "user:bob", 50.0, 0.0)
    for at in range(5):
        await rows.remember(str(at), "user:alice", 100.0 + at, 0.0)
    left = await database.read(lambda tx: tx.all("SELECT hash FROM refresh_token ORDER BY hash"))
    assert [hashed for (hashed,) in left] == ["2", "3", "4", "other"]
