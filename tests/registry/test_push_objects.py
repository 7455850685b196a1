"""Pushing blobs where they are in a bucket: two nodes, whose clients come to either of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from obstore.store import MemoryStore

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.registry import orphans
from cacheproxy.registry import push as pushes
from cacheproxy.registry.push import SESSION_KEPT, Push
from cacheproxy.registry.refusals import Ended, OutOfOrder
from cacheproxy.registry.space import Space
from cacheproxy.registry.trash import Trash
from cacheproxy.store import bucket as buckets
from cacheproxy.store import chunks
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.content import Content
from cacheproxy.store.errors import StoreBusy, StoreUnreachable
from cacheproxy.store.objects import ObjectContent, open_objects
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from tests.registry.test_push import ALICE, DATA, DIGEST, TEAM, Gone, body, pieces
from tests.store.hosting import host, rows

HALF = len(DATA) // 2


class Away(Bucket):
    """May be away."""

    away = False

    def put(self, key: str, size: int, chunks: object) -> None:
        if self.away:
            raise StoreUnreachable("down")
        super().put(key, size, chunks)  # type: ignore[arg-type]


class Node:
    def __init__(self, content: ObjectContent, database: SQLite, shop: Shop) -> None:
        self.content = content
        self.pushing = Pushing(database)
        self.push = Push(self.pushing, content.uploads, content, lambda: shop.now)

    async def append(self, session: str, *chunks: bytes, span: tuple[int, int] | None = None) -> int:
        return await self.push.append(session, TEAM, ALICE, body(*chunks), span)

    async def finish(self, session: str, *chunks: bytes, digest: Digest = DIGEST) -> int:
        return await self.push.finish(session, TEAM, ALICE, digest, body(*chunks))

    async def status(self, session: str) -> int:
        return await self.push.status(session, TEAM, ALICE)


class Shop:
    """What both nodes share."""

    def __init__(self, database: SQLite) -> None:
        self.now = 1e9
        self.database = database
        self.bucket = Away(MemoryStore(), "memory://test")
        self.records = Records(database)
        self.a: Node
        self.b: Node

    def keys(self, prefix: str) -> list[str]:
        return [key for key, _, _ in self.bucket.list(prefix)]

    async def emptied(self) -> None:
        """The trash, as each node does it."""
        space = Space(None, lambda _: 0, self.a.content.capacity, stored=0, partials=[])
        await Trash(self.records, self.a.content, space, lambda: self.now).empty()

    async def bytes_stored(self, digest: Digest = DIGEST) -> bytes | None:
        row = await self.records.blob(TEAM, digest)
        if row is None:
            return None
        piece = self.bucket.get(row.location, 0, row.size)
        return None if piece is None else bytes(piece.data)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(SQLite.open(tmp_path / "rows.db"))
        await host(database, TEAM)
        shop = Shop(database)
        for name in ("a", "b"):
            content = await stack.enter_async_context(open_objects(shop.bucket, tmp_path / name))
            setattr(shop, name, Node(content, database, shop))
        yield shop


async def begin(shop: Shop) -> str:
    return await shop.a.push.begin(TEAM, ALICE, "sha256")


async def test_an_upload_goes_from_node_to_node(shop: Shop) -> None:
    session = await begin(shop)
    assert await shop.a.append(session, *pieces(DATA[:1000])) == 1000
    assert await shop.b.append(session, *pieces(DATA[1000:HALF])) == HALF
    assert [await node.status(session) for node in (shop.a, shop.b)] == [HALF, HALF]
    assert await shop.a.append(session, *pieces(DATA[HALF:])) == len(DATA)
    assert await shop.b.finish(session) == len(DATA)
    assert await shop.bytes_stored() == DATA


async def test_its_chunks_go_with_it(shop: Shop) -> None:
    session = await begin(shop)
    await shop.a.append(session, DATA[:HALF])
    await shop.b.append(session, DATA[HALF:])
    await shop.a.finish(session)
    await shop.emptied()
    assert shop.keys("uploads") == []
    assert len(shop.keys("blobs")) == 1
    assert await rows(shop.database, "SELECT * FROM chunk") == []


@pytest.mark.parametrize("tail", [0, 1, HALF])
async def test_what_comes_with_the_end_is_its_own_nodes(shop: Shop, tail: int) -> None:
    session = await begin(shop)
    await shop.a.append(session, DATA[: len(DATA) - tail])
    assert await shop.b.finish(session, DATA[len(DATA) - tail :]) == len(DATA)
    assert await shop.bytes_stored() == DATA


async def test_all_of_it_may_come_with_the_end(shop: Shop) -> None:
    session = await begin(shop)
    assert await shop.b.finish(session, *pieces(DATA)) == len(DATA)
    assert await shop.bytes_stored() == DATA


async def test_a_digest_of_another_algorithm(shop: Shop) -> None:
    digest = Digest.of(DATA, "sha512")
    session = await begin(shop)
    await shop.a.append(session, DATA)
    await shop.a.finish(session, digest=digest)
    assert await shop.bytes_stored(digest) == DATA


async def test_the_same_bytes_sent_to_both_nodes_are_counted_once(shop: Shop) -> None:
    session = await begin(shop)
    coming, go, told = trio.Event(), trio.Event(), list[object]()

    async def slowly() -> bytes:
        if go.is_set():
            return b""
        coming.set()
        await go.wait()
        return DATA

    async def late() -> None:
        try:
            told.append(await shop.a.push.append(session, TEAM, ALICE, slowly, (0, len(DATA))))
        except OutOfOrder as error:
            told.append(error.received)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            await coming.wait()
            await shop.b.append(session, DATA[:HALF], span=(0, HALF))
            go.set()
    assert told == [HALF]
    assert len(shop.keys("uploads")) == 1
    await shop.a.append(session, DATA[HALF:], span=(HALF, len(DATA)))
    await shop.b.finish(session)
    assert await shop.bytes_stored() == DATA


@pytest.mark.parametrize("span", [(0, 3), (2, 5), (6, 9)])
async def test_bytes_out_of_order_change_nothing(shop: Shop, span: tuple[int, int]) -> None:
    session = await begin(shop)
    await shop.a.append(session, b"hello")
    with pytest.raises(OutOfOrder) as caught:
        await shop.b.append(session, b"abc", span=span)
    assert caught.value.received == 5
    assert len(shop.keys("uploads")) == 1


async def test_another_number_of_bytes_than_was_said_changes_nothing(shop: Shop) -> None:
    session = await begin(shop)
    with pytest.raises(OCIError, match="SIZE_INVALID"):
        await shop.a.append(session, b"ab", span=(0, 3))
    assert await shop.b.status(session) == 0
    assert shop.keys("uploads") == []


async def test_what_came_before_the_client_went_away_stays(shop: Shop) -> None:
    session = await begin(shop)
    with pytest.raises(Gone):
        await shop.a.push.append(session, TEAM, ALICE, body(*pieces(DATA[:HALF]), ends=Gone()))
    assert await shop.b.status(session) == HALF
    await shop.b.finish(session, DATA[HALF:])
    assert await shop.bytes_stored() == DATA


async def test_wrong_bytes_end_it_and_leave_nothing(shop: Shop) -> None:
    session = await begin(shop)
    await shop.a.append(session, DATA)
    with pytest.raises(OCIError, match="DIGEST_INVALID"):
        await shop.b.finish(session, b"!")
    await shop.emptied()
    assert shop.keys("uploads") == shop.keys("blobs") == []
    with pytest.raises(Ended):
        await shop.a.status(session)


async def test_a_cancelled_session_leaves_nothing(shop: Shop) -> None:
    session = await begin(shop)
    await shop.a.append(session, DATA)
    await shop.b.push.cancel(session, TEAM, ALICE)
    await shop.emptied()
    assert shop.keys("uploads") == []


async def test_a_chunk_that_comes_when_it_has_ended_leaves_nothing(shop: Shop) -> None:
    session = await begin(shop)

    async def receive() -> bytes:
        if await shop.b.pushing.find(session) is None:
            return b""
        await shop.b.push.cancel(session, TEAM, ALICE)
        return DATA

    with pytest.raises(Ended):
        await shop.a.push.append(session, TEAM, ALICE, receive)
    assert shop.keys("uploads") == []


async def test_an_end_that_the_client_did_not_hear_of_may_be_asked_for_at_the_other_node(shop: Shop) -> None:
    session = await begin(shop)
    await shop.a.append(session, DATA)
    await shop.a.finish(session)
    assert await shop.b.finish(session) == len(DATA)


async def test_bytes_that_are_here_already_are_not_kept_twice(shop: Shop) -> None:
    for _ in range(2):
        session = await begin(shop)
        await shop.a.append(session, DATA[:HALF])
        await shop.b.append(session, DATA[HALF:])
        await shop.b.finish(session)
    await shop.emptied()
    assert len(shop.keys("blobs")) == 1


async def test_a_store_that_takes_nothing_is_said_and_the_session_stays(shop: Shop) -> None:
    session = await begin(shop)
    await shop.a.append(session, DATA[:HALF])
    shop.bucket.away = True
    for sending in (shop.a.append(session, DATA[HALF:]), shop.b.finish(session, DATA[HALF:])):
        with pytest.raises(OCIError) as caught:
            await sending
        assert (caught.value.status, caught.value.code) == (503, "UNAVAILABLE")
        assert await shop.b.status(session) == HALF
    shop.bucket.away = False
    await shop.b.finish(session, DATA[HALF:])
    assert await shop.bytes_stored() == DATA


async def test_sessions_that_nobody_comes_back_to_end_at_either_node(shop: Shop) -> None:
    old = await begin(shop)
    await shop.a.append(old, b"hello")
    shop.now += SESSION_KEPT + 1
    young = await begin(shop)
    await shop.a.append(young, b"hello")
    await shop.b.push._expire()
    await shop.emptied()
    assert [key.split("/")[1] for key in shop.keys("uploads")] == [young]
    with pytest.raises(Ended):
        await shop.a.status(old)
    assert await shop.a.status(young) == 5


async def test_a_session_that_is_touched_while_it_is_looked_at_does_not_end(shop: Shop) -> None:
    session = await begin(shop)
    shop.now += SESSION_KEPT + 1
    assert await shop.b.pushing.stale(shop.now - SESSION_KEPT, 9) == [session]
    await shop.a.append(session, b"hello")
    assert not await shop.b.pushing.end(session, shop.now, shop.now - SESSION_KEPT)
    assert await shop.a.status(session) == 5


async def test_a_chunk_that_no_row_counts_is_swept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    session = await begin(shop)
    await shop.a.append(session, b"hello")

    async def killed(*_: object) -> None:
        raise StoreBusy(0, "as if the node had ended here")

    monkeypatch.setattr(shop.b.pushing, "add", killed)
    with pytest.raises(StoreBusy):
        await shop.b.append(session, b" world")
    assert len(shop.keys("uploads")) == 2
    later = max(written for _, _, written in shop.bucket.list("uploads")) + orphans.GRACE + 1
    assert await orphans.sweep(shop.a.content.uploads, shop.a.pushing, later) == 1
    assert await shop.a.append(session, b" world") == 11


async def test_an_upload_in_too_many_requests_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "MOST_CHUNKS", 2)
    session = await begin(shop)
    for byte in (b"a", b"b"):
        await shop.a.append(session, byte)
    with pytest.raises(OCIError, match="BLOB_UPLOAD_INVALID"):
        await shop.a.append(session, b"c")
    assert len(shop.keys("uploads")) == 2
    await shop.a.finish(session, b"c", digest=Digest.of(b"abc"))


async def test_what_is_left_of_a_blob_in_one_request_is_nothing(shop: Shop) -> None:
    with pytest.raises(Gone):
        await shop.a.push.whole(TEAM, ALICE, "sha256", DIGEST, body(DATA[:HALF], ends=Gone()))
    await shop.emptied()
    assert shop.keys("uploads") == shop.keys("blobs") == []
    assert await rows(shop.database, "SELECT * FROM upload") == []
    content: Content = shop.a.content
    assert list((content.root / "uploads").iterdir()) == []


async def test_chunks_are_joined_while_they_are_sent_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large ones are: a part of the new object goes up while the next chunk is read."""
    monkeypatch.setattr(buckets, "PART", 1 << 18)
    monkeypatch.setattr(chunks, "RANGE", 100_000)
    session = await begin(shop)
    await shop.a.append(session, DATA[:HALF])
    await shop.b.append(session, DATA[HALF:-5])
    await shop.a.finish(session, DATA[-5:])
    assert await shop.bytes_stored() == DATA
