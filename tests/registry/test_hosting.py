"""Manifests of hosted repositories: what is taken, what is refused, and who hears of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.core.settings import Settings
from cacheproxy.registry.hosting import Hosting
from cacheproxy.registry.push import Push
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.uploads import UploadFiles

TEAM = "team/app"


class Desk(Hosting):
    """A hosted repository without blobs: its indexes are sparse."""

    def __init__(self, root: Path, database: SQLite) -> None:
        self.changes = 0
        self.rows = Hosted(database)
        content = DiskContent(root / "content")
        push = Push(Pushing(database), UploadFiles(content.root), content, lambda: 1e9)
        nobody: Any = None
        super().__init__(
            self.rows, Records(database), content, push, nobody, lambda: 1e9, lambda: self._note()
        )

    def _note(self) -> None:
        self.changes += 1

    async def push_(self, tag: str, note: str = "") -> Digest:
        digest, _ = await self.put(TEAM, tag, (), OCI_INDEX, index(note))
        return digest


def index(note: str = "") -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"note": note}}
    return json.dumps(document).encode()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        desk = Desk(tmp_path, database)
        await desk.rows.create(TEAM, Settings(), 1.0)
        yield desk


async def test_a_new_tag_changes_no_answer(desk: Desk) -> None:
    digest = await desk.push_("v1")
    assert (await desk.manifest(TEAM, "v1")).digest == digest
    await desk.push_("v1")
    assert desk.changes == 0


async def test_a_tag_that_moves_is_told(desk: Desk) -> None:
    await desk.push_("v1")
    moved = await desk.push_("v1", "moved")
    assert desk.changes == 1
    assert (await desk.manifest(TEAM, "v1")).digest == moved


@pytest.mark.parametrize("by_tag", [True, False])
async def test_what_goes_is_told(desk: Desk, by_tag: bool) -> None:
    digest = await desk.push_("v1")
    await desk.delete(TEAM, "v1" if by_tag else digest)
    assert desk.changes == 1
    with pytest.raises(OCIError) as caught:
        await desk.manifest(TEAM, "v1")
    assert caught.value.code == "MANIFEST_UNKNOWN"


async def test_an_image_without_tags_that_goes_is_told(desk: Desk) -> None:
    digest = await desk.push_("v1")
    await desk.delete(TEAM, "v1")
    await desk.delete(TEAM, digest)
    assert desk.changes == 2


@pytest.mark.parametrize("reference", ["v1", Digest.of(b"none")])
async def test_what_is_not_there_cannot_go(desk: Desk, reference: Digest | str) -> None:
    with pytest.raises(OCIError) as caught:
        await desk.delete(TEAM, reference)
    assert (caught.value.code, desk.changes) == ("MANIFEST_UNKNOWN", 0)


async def test_a_repository_that_is_not_there_takes_nothing(desk: Desk) -> None:
    for asked in (desk.put("none", "v1", (), OCI_INDEX, index()), desk.delete("none", "v1")):
        with pytest.raises(OCIError) as caught:
            await asked
        assert caught.value.code == "NAME_UNKNOWN"


@pytest.mark.parametrize(
    ("settings", "code", "status"),
    [
        (Settings(immutable=True), "TAG_INVALID", 400),
        (Settings(quota_images=1), "TOOMANYREQUESTS", 429),
    ],
)
async def test_what_is_set_refuses_and_changes_nothing(
    desk: Desk, settings: Settings, code: str, status: int
) -> None:
    digest = await desk.push_("v1")
    await desk.rows.configure(TEAM, settings)
    assert await desk.push_("v1") == digest
    with pytest.raises(OCIError) as caught:
        await desk.push_("v1", "moved")
    assert (caught.value.code, caught.value.status, desk.changes) == (code, status, 0)
    assert (await desk.manifest(TEAM, "v1")).digest == digest


async def test_the_catalog_goes_on_until_it_has_enough(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheproxy.registry.hosting.PAGE", 2)
    for name in "abcdefg":
        await desk.rows.create(name, Settings(), 1.0)
    assert await desk.names("", 2, lambda name: name in "cfg") == (["c", "f"], True)
    assert await desk.names("f", 2, lambda name: name in "cfg") == (["g"], False)
    assert await desk.names("", 0, lambda _: True) == ([], True)
