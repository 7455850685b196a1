"""Pushing blobs: sessions, proofs, mounts, and what is left of what did not become a blob."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.registry import push as pushes
from cacheproxy.registry.push import GRACE, SESSION_KEPT, Push
from cacheproxy.registry.refusals import OutOfOrder
from cacheproxy.store import uploads
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.uploads import UploadFiles
from tests.store.hosting import host, rows

TEAM, OTHER = "team/app", "team/other"
ALICE, BOB = "user:alice", "user:bob"
DATA = bytes(range(256)) * 8000
DIGEST = Digest.of(DATA)


class Gone(Exception):
    """The client went away."""


def body(*chunks: bytes, ends: Exception | None = None) -> Callable[[], Awaitable[bytes]]:
    rest = list(chunks)

    async def receive() -> bytes:
        await trio.lowlevel.checkpoint()
        if rest:
            return rest.pop(0)
        if ends is not None:
            raise ends
        return b""

    return receive


def pieces(data: bytes, size: int = 100_000) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


class Desk:
    """A push over a real disk and a real database."""

    def __init__(self, root: Path, database: SQLite) -> None:
        self.now = 1e9
        self.root = root
        self.database = database
        self.records = Records(database)
        self.content = DiskContent(root)
        self.push = self.restarted(database)

    def restarted(self, database: SQLite) -> Push:
        return Push(Pushing(database), UploadFiles(self.root), self.content, lambda: self.now)

    async def begin(self) -> str:
        return await self.push.begin(TEAM, ALICE, "sha256")

    async def append(self, session: str, *chunks: bytes, span: tuple[int, int] | None = None) -> int:
        return await self.push.append(session, TEAM, ALICE, body(*chunks), span)

    async def finish(self, session: str, *chunks: bytes, digest: Digest = DIGEST) -> int:
        return await self.push.finish(session, TEAM, ALICE, digest, body(*chunks))

    async def bytes_of(self, repository: str, digest: Digest) -> bytes | None:
        row = await self.records.blob(repository, digest)
        return None if row is None else (self.root / row.location).read_bytes()

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.root / "uploads").iterdir())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        await host(database, TEAM, OTHER)
        yield Desk(tmp_path / "content", database)


async def test_what_is_sent_in_pieces_becomes_a_blob(desk: Desk) -> None:
    session = await desk.begin()
    assert await desk.append(session, *pieces(DATA[:1_000_000])) == 1_000_000
    assert await desk.append(session, *pieces(DATA[1_000_000:])) == len(DATA)
    assert await desk.finish(session) == len(DATA)
    assert await desk.bytes_of(TEAM, DIGEST) == DATA
    assert desk.files() == []


async def test_what_is_sent_with_the_end_is_appended(desk: Desk) -> None:
    session = await desk.begin()
    await desk.append(session, DATA[:5])
    assert await desk.finish(session, DATA[5:]) == len(DATA)
    assert await desk.bytes_of(TEAM, DIGEST) == DATA


async def test_an_empty_blob(desk: Desk) -> None:
    assert await desk.finish(await desk.begin(), digest=Digest.of(b"")) == 0
    assert await desk.bytes_of(TEAM, Digest.of(b"")) == b""


async def test_a_digest_of_another_algorithm_than_was_expected(desk: Desk) -> None:
    digest = Digest.of(DATA, "sha512")
    await desk.finish(await desk.begin(), DATA, digest=digest)
    assert await desk.bytes_of(TEAM, digest) == DATA


async def test_a_session_goes_on_after_a_restart(desk: Desk, tmp_path: Path) -> None:
    session = await desk.begin()
    await desk.append(session, DATA[:1000])
    async with SQLite.open(tmp_path / "rows.db") as database:
        desk.push = desk.restarted(database)
        assert await desk.push.status(session, TEAM, ALICE) == 1000
        await desk.finish(session, DATA[1000:])
    assert await desk.bytes_of(TEAM, DIGEST) == DATA


async def test_a_wrong_digest_leaves_nothing(desk: Desk) -> None:
    session = await desk.begin()
    with pytest.raises(OCIError, match="DIGEST_INVALID"):
        await desk.finish(session, DATA, b"!")
    assert desk.files() == []
    assert await desk.bytes_of(TEAM, DIGEST) is None
    with pytest.raises(OCIError, match="BLOB_UPLOAD_UNKNOWN"):
        await desk.finish(session, DATA)


@pytest.mark.parametrize("span", [(0, 3), (2, 5), (6, 9)])
async def test_bytes_out_of_order_change_nothing(desk: Desk, span: tuple[int, int]) -> None:
    session = await desk.begin()
    await desk.append(session, b"hello")
    with pytest.raises(OutOfOrder) as caught:
        await desk.append(session, b"abc", span=span)
    assert (caught.value.status, caught.value.received) == (416, 5)
    assert await desk.push.status(session, TEAM, ALICE) == 5


@pytest.mark.parametrize("sent", [b"ab", b"abcd"])
async def test_another_number_of_bytes_than_was_said_changes_nothing(desk: Desk, sent: bytes) -> None:
    session = await desk.begin()
    await desk.append(session, b"hello")
    with pytest.raises(OCIError, match="SIZE_INVALID"):
        await desk.append(session, sent, span=(5, 8))
    assert await desk.append(session, b"abc", span=(5, 8)) == 8


async def test_what_came_before_the_client_went_away_stays(desk: Desk) -> None:
    session = await desk.begin()
    with pytest.raises(Gone):
        await desk.push.append(session, TEAM, ALICE, body(*pieces(DATA[:1_500_000]), ends=Gone()))
    assert await desk.push.status(session, TEAM, ALICE) == 1_500_000
    await desk.finish(session, DATA[1_500_000:])
    assert await desk.bytes_of(TEAM, DIGEST) == DATA


async def test_a_request_that_is_cancelled_leaves_the_session_to_the_next(desk: Desk) -> None:
    session = await desk.begin()
    with trio.move_on_after(0.05):
        await desk.push.append(session, TEAM, ALICE, trio.sleep_forever)
    await desk.finish(session, DATA)
    assert await desk.bytes_of(TEAM, DIGEST) == DATA


async def test_one_request_at_a_time_appends(desk: Desk) -> None:
    session = await desk.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.push.append, session, TEAM, ALICE, trio.sleep_forever)
        await trio.sleep(0.05)
        with pytest.raises(OCIError) as caught:
            await desk.append(session, b"abc")
        assert caught.value.status == 409
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("repository", "principal"), [(OTHER, ALICE), (TEAM, BOB)])
async def test_a_session_is_its_owners_and_its_repositorys(
    desk: Desk, repository: str, principal: str
) -> None:
    session = await desk.begin()
    push = desk.push
    for attempt in (
        push.status(session, repository, principal),
        push.append(session, repository, principal, body(b"abc")),
        push.finish(session, repository, principal, DIGEST, body(DATA)),
        push.cancel(session, repository, principal),
    ):
        with pytest.raises(OCIError, match="BLOB_UPLOAD_UNKNOWN"):
            await attempt
    assert await desk.push.status(session, TEAM, ALICE) == 0


async def test_a_cancelled_session_leaves_nothing(desk: Desk) -> None:
    session = await desk.begin()
    await desk.append(session, DATA)
    await desk.push.cancel(session, TEAM, ALICE)
    assert desk.files() == []
    with pytest.raises(OCIError, match="BLOB_UPLOAD_UNKNOWN"):
        await desk.push.status(session, TEAM, ALICE)


async def test_an_end_that_the_client_did_not_hear_of_may_be_asked_for_again(desk: Desk) -> None:
    session = await desk.begin()
    await desk.finish(session, DATA)
    assert await desk.finish(session) == len(DATA)


async def test_bytes_that_are_here_already_are_not_kept_twice(desk: Desk) -> None:
    await desk.finish(await desk.begin(), DATA)
    session = await desk.push.begin(OTHER, BOB, "sha256")
    await desk.push.finish(session, OTHER, BOB, DIGEST, body(DATA))
    assert await desk.bytes_of(OTHER, DIGEST) == DATA
    assert len(list((desk.root / "blobs").rglob("*.*"))) == 1
    assert desk.files() == []


async def test_a_mount_gives_what_the_source_has(desk: Desk) -> None:
    await desk.finish(await desk.begin(), DATA)
    assert await desk.push.mount(OTHER, DIGEST, TEAM)
    assert await desk.bytes_of(OTHER, DIGEST) == DATA
    assert not await desk.push.mount(OTHER, Digest.of(b"x"), TEAM)
    assert not await desk.push.mount(OTHER, DIGEST, "team/none")


async def test_a_mount_from_anywhere_takes_only_what_the_caller_may_read(desk: Desk) -> None:
    await desk.finish(await desk.begin(), DATA)
    assert not await desk.push.mount_from_any(OTHER, DIGEST, lambda name: name != TEAM)
    assert await desk.bytes_of(OTHER, DIGEST) is None
    assert await desk.push.mount_from_any(OTHER, DIGEST, lambda _: True)
    assert await desk.bytes_of(OTHER, DIGEST) == DATA


async def test_a_blob_goes_from_its_repository(desk: Desk) -> None:
    await desk.finish(await desk.begin(), DATA)
    await desk.push.delete(TEAM, DIGEST)
    assert await desk.push.find(TEAM, DIGEST) is None
    with pytest.raises(OCIError, match="BLOB_UNKNOWN"):
        await desk.push.delete(TEAM, DIGEST)


async def test_no_upload_begins_in_a_repository_that_is_not_there(desk: Desk) -> None:
    with pytest.raises(OCIError, match="NAME_UNKNOWN"):
        await desk.push.begin("team/none", ALICE, "sha256")


async def test_too_many_sessions_of_one_principal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "MOST_SESSIONS", 1)
    await desk.begin()
    with pytest.raises(OCIError) as caught:
        await desk.begin()
    assert caught.value.status == 429
    assert len(desk.files()) == 1
    await desk.push.begin(TEAM, BOB, "sha256")


async def test_a_full_disk_is_said_and_the_session_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await desk.begin()
    await desk.append(session, b"hello")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(uploads, "write_at", full)
    with pytest.raises(OCIError) as caught:
        await desk.append(session, *pieces(DATA))
    assert (caught.value.status, caught.value.code) == (503, "UNAVAILABLE")
    monkeypatch.undo()
    assert await desk.push.status(session, TEAM, ALICE) == 5


async def test_a_disk_that_fails_is_not_taken_for_full(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await desk.begin()

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(StoreSuspect):
        await desk.finish(session, DATA)
    monkeypatch.undo()
    assert await desk.bytes_of(TEAM, DIGEST) is None


async def test_sessions_that_nobody_comes_back_to_end(desk: Desk) -> None:
    session = await desk.begin()
    await desk.append(session, b"hello")
    old = desk.now
    os.utime(desk.root / "uploads" / session, (old, old))
    desk.now += SESSION_KEPT + 1
    young = await desk.begin()
    os.utime(desk.root / "uploads" / young, (desk.now, desk.now))
    with trio.move_on_after(0.5):
        await desk.push.expire()
    assert desk.files() == [young]
    with pytest.raises(OCIError, match="BLOB_UPLOAD_UNKNOWN"):
        await desk.push.status(session, TEAM, ALICE)


async def test_a_session_that_is_worked_on_does_not_end(desk: Desk) -> None:
    session = await desk.begin()
    desk.now += SESSION_KEPT - 1
    await desk.append(session, b"hello")
    desk.now += 2
    os.utime(desk.root / "uploads" / session, (desk.now, desk.now))
    with trio.move_on_after(0.2):
        await desk.push.expire()
    assert await desk.push.status(session, TEAM, ALICE) == 5


async def test_whoever_finds_a_blob_has_time_to_name_it(desk: Desk) -> None:
    await desk.finish(await desk.begin(), DATA)
    desk.now += GRACE * 0.9
    assert await desk.push.find(TEAM, DIGEST) == len(DATA)
    assert await rows(desk.database, "SELECT keep_until FROM link") == [(desk.now + GRACE,)]
