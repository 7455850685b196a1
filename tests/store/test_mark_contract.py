"""The mark beside the bytes, on each kind of store and of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cacheproxy.store.content import Content
from cacheproxy.store.database import Database, Tx
from cacheproxy.store.errors import StoreNotOurs, StoreSuspect
from cacheproxy.store.mark import NAME, BucketMark, FolderMark, Mark, claim, demand_ours
from cacheproxy.store.objects import ObjectContent
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from tests.store.test_content_contract import DATA, DIGEST, stored


@pytest.fixture
def mark(content: Content) -> Mark:
    return BucketMark(content.bucket) if isinstance(content, ObjectContent) else FolderMark(content.root)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Database]:
    """Another installation's rows, or empty ones in place of those that were lost."""
    async with SQLite.open(tmp_path / "other.db") as database:
        yield database


async def bring(content: Content, records: Records) -> str:
    location = stored(content)
    await records.record_blob(DIGEST, len(DATA), location.path, location.generation, 1.0)
    return location.path


def forget_mark(content: Content) -> None:
    if isinstance(content, ObjectContent):
        content.bucket.delete(NAME)
    else:
        (content.root / NAME).unlink()


def earlier(tx: Tx) -> None:
    """As an earlier version has left it."""
    tx.run("DELETE FROM installation")


async def test_a_new_store_is_marked_and_known_again(
    database: Database, content: Content, mark: Mark
) -> None:
    assert mark.read() is None
    await claim(database, content, mark)
    assert len(mark.read() or "") == 32
    await claim(database, content, mark)
    await demand_ours(database, mark)


async def test_an_empty_database_over_a_full_store_is_refused(
    database: Database, content: Content, mark: Mark, other: Database
) -> None:
    await claim(database, content, mark)
    await bring(content, Records(database))
    for _ in range(2):
        with pytest.raises(StoreNotOurs, match=r"cacheproxy-store says .* another installation"):
            await claim(other, content, mark)
    with pytest.raises(StoreNotOurs, match="another installation"):
        await demand_ours(other, mark)
    await claim(database, content, mark)


async def test_whose_mark_was_removed_by_hand_may_be_taken_over(
    database: Database, content: Content, mark: Mark, other: Database
) -> None:
    await claim(database, content, mark)
    forget_mark(content)
    await claim(other, content, mark)
    with pytest.raises(StoreNotOurs):
        await claim(database, content, mark)


async def test_a_store_that_is_not_mounted_is_refused_until_its_name_is_written(
    database: Database, content: Content, mark: Mark
) -> None:
    await claim(database, content, mark)
    await bring(content, Records(database))
    name = mark.read() or ""
    forget_mark(content)
    with pytest.raises(StoreNotOurs, match=f"is the disk mounted.* write {name} there"):
        await claim(database, content, mark)
    with pytest.raises(StoreNotOurs, match="is the disk mounted"):
        await demand_ours(database, mark)
    assert mark.read() is None
    mark.write(name)
    await claim(database, content, mark)


async def test_an_empty_store_is_marked_anew(database: Database, content: Content, mark: Mark) -> None:
    await claim(database, content, mark)
    name = mark.read()
    forget_mark(content)
    await claim(database, content, mark)
    assert mark.read() == name


async def test_an_earlier_versions_store_is_marked_if_its_blobs_are_there(
    database: Database, content: Content, mark: Mark
) -> None:
    await bring(content, Records(database))
    await database.write(earlier)
    await claim(database, content, mark)
    assert mark.read()


async def test_an_earlier_versions_store_without_any_of_its_blobs_is_refused(
    database: Database, content: Content, mark: Mark
) -> None:
    content.remove(await bring(content, Records(database)))
    await database.write(earlier)
    with pytest.raises(StoreNotOurs, match=r"is the disk mounted.* write [0-9a-f]{32} there"):
        await claim(database, content, mark)
    assert mark.read() is None


class Broken:
    """A mark that cannot be written, or of which nobody hears that it was."""

    place = "somewhere"

    def __init__(self, mark: Mark, write: Callable[[str], None]) -> None:
        self.read = mark.read
        self.write = write


@pytest.mark.parametrize("written", [True, False])
async def test_a_kill_around_the_writing_of_the_mark_is_made_good(
    database: Database, content: Content, mark: Mark, written: bool
) -> None:
    def die(name: str) -> None:
        if written:
            mark.write(name)
        raise OSError("the power")

    await bring(content, Records(database))
    with pytest.raises(OSError, match="the power"):
        await claim(database, content, Broken(mark, die))
    await claim(database, content, mark)
    assert mark.read()


async def test_a_mark_is_no_blob(database: Database, content: Content, mark: Mark) -> None:
    await claim(database, content, mark)
    assert list(content.files(0.0, 1e12)) == []


def test_a_mark_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise StoreSuspect(5, "cannot sync")

    monkeypatch.setattr("cacheproxy.store.mark.sync_file", fails)
    with pytest.raises(StoreSuspect):
        FolderMark(tmp_path).write("name")
    assert FolderMark(tmp_path).read() is None


def test_a_mark_that_a_person_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("  0123\r\n")
    assert FolderMark(tmp_path).read() == "0123"
