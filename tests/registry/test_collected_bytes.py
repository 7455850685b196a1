"""Bytes whose row was collected: whoever reads them, who pushes them again, and a crash before they go.

R5, R12 and R15 of the races that tests/store/test_races_contract.py lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial as bind

import pytest
import trio

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.registry.push import GRACE, Push
from cacheproxy.registry.space import Space
from cacheproxy.registry.trash import Trash
from cacheproxy.store.collection import TRASHED, Collection
from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.errors import BlobMissing
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.rows import BlobRow
from cacheproxy.store.uploads import UploadFiles
from tests.postgres import postgres_url as postgres_url
from tests.store.conftest import content as content
from tests.store.conftest import database as database
from tests.store.conftest import opened as opened
from tests.store.conftest import opened_content as opened_content
from tests.store.hosting import host, rows

TEAM, ALICE = "team/app", "user:alice"
DATA = bytes(range(256)) * 8000
DIGEST = Digest.of(DATA)
pytestmark = pytest.mark.parametrize("opened_content", ["disk", "seaweedfs"], indirect=True)
ALL = Span(0, len(DATA), False)


@dataclass
class Store:
    database: Database
    content: Content
    now: float = 1e9

    @property
    def trash(self) -> Trash:
        """A daemon's: each start has a new one."""
        space = Space(None, lambda total: 0, lambda: (1 << 40, 1 << 40), stored=0, partials=())
        return Trash(Records(self.database), self.content, space, lambda: self.now)

    async def push(self) -> BlobRow:
        files = UploadFiles(self.content.root)
        push, rest = Push(Pushing(self.database), files, self.content, lambda: self.now), [DATA]

        async def receive() -> bytes:
            return rest.pop() if rest else b""

        await push.finish(await push.begin(TEAM, ALICE, "sha256"), TEAM, ALICE, DIGEST, receive)
        row = await self.row()
        assert row is not None
        return row

    async def row(self) -> BlobRow | None:
        found = await Records(self.database).blob(TEAM, DIGEST)
        return None if found is None else BlobRow(DIGEST, found.size, found.generation, found.location)

    async def collect(self) -> None:
        """The row goes, as its time is over."""
        self.now += GRACE + 1
        collection = Collection(self.database)
        swept = await collection.sweep(await collection.due(self.now, 10), self.now, GRACE)
        assert swept.blobs == 1

    async def there(self, row: BlobRow) -> bool:
        try:
            await trio.to_thread.run_sync(bind(self.content.confirm, DIGEST, row.location, row.size))
        except BlobMissing:
            return False
        return True

    async def trashed(self) -> list[object]:
        return [path for (path,) in await rows(self.database, "SELECT path FROM trash")]


@pytest.fixture
async def store(database: Database, content: Content) -> Store:
    await host(database, TEAM)
    return Store(database, content)


async def sent(view: BlobView, start: int = 0) -> bytes:
    """From there to the end."""
    got = b""
    while start + len(got) < view.size:
        at = start + len(got)
        count = await view.available(at, ALL)
        got += await view.read(at, count)
    return got


async def test_who_reads_when_the_row_goes_gets_to_the_end(store: Store) -> None:
    row = await store.push()
    view = store.content.open(DIGEST, row.location, row.size)
    half = bytes(await view.read(0, await view.available(0, ALL)))
    await store.collect()
    await store.trash.empty()
    assert half + await sent(view, len(half)) == DATA
    view.close()


async def test_who_found_the_row_before_it_went_still_finds_the_bytes(store: Store) -> None:
    row = await store.push()
    await store.collect()
    store.now += TRASHED - 1
    await store.trash.empty()
    view = store.content.open(DIGEST, row.location, row.size)
    assert await sent(view) == DATA
    view.close()


async def test_who_comes_after_it_went_finds_neither(store: Store) -> None:
    row = await store.push()
    await store.collect()
    assert await store.row() is None
    store.now += TRASHED
    await store.trash.empty()
    assert not await store.there(row)
    assert await store.trashed() == []


@pytest.mark.parametrize("first", ["the push", "the unlink"])
async def test_bytes_that_come_again_are_not_the_ones_that_are_unlinked(store: Store, first: str) -> None:
    old = await store.push()
    await store.collect()
    store.now += TRASHED
    if first == "the unlink":
        await store.trash.empty()
    new = await store.push()
    await store.trash.empty()
    assert not await store.there(old)
    view = store.content.open(DIGEST, new.location, new.size)
    assert await sent(view) == DATA
    view.close()


@pytest.mark.parametrize("crash", ["before the unlink", "after the unlink"])
async def test_what_a_crash_left_in_the_trash_goes_after_the_next_start(store: Store, crash: str) -> None:
    row = await store.push()
    await store.collect()
    store.now += TRASHED
    if crash == "after the unlink":
        await trio.to_thread.run_sync(store.content.remove, row.location)
    assert await store.trashed() == [row.location]
    await store.trash.empty()
    assert await store.trashed() == []
    assert not await store.there(row)
