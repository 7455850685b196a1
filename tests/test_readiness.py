from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from cacheproxy.api.operations import _answers
from cacheproxy.readiness import checks
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite


async def test_all_is_well(tmp_path: Path) -> None:
    async with SQLite.open(tmp_path / "rows.db") as database:
        asked = checks(database, Records(database), DiskContent(tmp_path / "blobs"))
        assert await _answers(asked) == {"database": "", "store": ""}


async def test_what_is_wrong_is_told_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(errno.EROFS, "read-only")

    async with SQLite.open(tmp_path / "rows.db") as database:
        content = DiskContent(tmp_path / "blobs")
        monkeypatch.setattr(content, "check", broken)
        monkeypatch.setattr(SQLite, "suspect", StoreSuspect(errno.EIO, "a sync failed"))
        answers = await _answers(checks(database, Records(database), content))
    assert "a sync failed" in answers["database"]
    assert "read-only" in answers["store"]


async def test_a_disk_that_hangs_costs_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, hanging = threading.Event(), list[int]()

    def hang() -> None:
        hanging.append(1)
        released.wait(10)

    monkeypatch.setattr("cacheproxy.api.operations.CHECK_LIMIT", 0.1)
    async with SQLite.open(tmp_path / "rows.db") as database:
        content = DiskContent(tmp_path / "blobs")
        monkeypatch.setattr(content, "check", hang)
        asked = checks(database, Records(database), content)
        for _ in range(3):
            assert (await _answers(asked))["store"].startswith("no answer")
        assert len(hanging) == 1
        released.set()
