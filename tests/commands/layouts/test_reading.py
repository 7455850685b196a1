from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from cacheproxy.commands.layouts import reading
from cacheproxy.commands.layouts.reading import listed, opened, tree_of
from cacheproxy.core.digest import Digest
from cacheproxy.core.layout import INDEX, MARKER, Index, LayoutInvalid, Root, blob_path, marker
from cacheproxy.core.media import OCI_MANIFEST

EMPTY = {MARKER: marker(), INDEX: b'{"manifests": []}'}


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar_of(root: Path, *files: dict[str, bytes]) -> Path:
    with tarfile.open(root / "x.tar", "w") as tar:
        for number, each in enumerate(files):
            folder_of(root / str(number), each)
            for name in each:
                tar.add(root / str(number) / name, name)
    return root / "x.tar"


@pytest.mark.parametrize("name", [MARKER, INDEX])
def test_what_has_not_both_of_its_files_is_no_layout(tmp_path: Path, name: str) -> None:
    files = {other: data for other, data in EMPTY.items() if other != name}
    for place in (folder_of(tmp_path / "x", files), tar_of(tmp_path, files)):
        with pytest.raises(LayoutInvalid, match=name), opened(str(place)):
            pass


def test_a_tar_with_two_indexes_is_refused(tmp_path: Path) -> None:
    place = tar_of(tmp_path, EMPTY, EMPTY)
    with pytest.raises(LayoutInvalid, match="it has two"), opened(str(place)):
        pass


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "x", EMPTY)
    digest = Digest.of(b"secret")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / blob_path(digest)).symlink_to(tmp_path / "secret")
    with opened(str(folder)) as layout:
        assert layout.size(digest) is None
        with pytest.raises(OSError, match="symbolic"):
            next(layout.chunks(digest))


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "x", {MARKER: marker()})
    os.mkfifo(folder / INDEX)
    with pytest.raises(LayoutInvalid, match="is no file"), opened(str(folder)):
        pass


def test_zstd_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x28\xb5\x2f\xfd rest")
    with pytest.raises(LayoutInvalid, match="zstd"), opened(str(tmp_path / "x")):
        pass


def test_manifests_that_are_missing_are_named(tmp_path: Path) -> None:
    digest = Digest.of(b"gone")
    with opened(str(folder_of(tmp_path / "x", EMPTY))) as layout, pytest.raises(LayoutInvalid, match=digest):
        tree_of(layout, Index((Root(digest, OCI_MANIFEST, 4),)))


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    body = json.dumps({"schemaVersion": 2}).encode()
    digest = Digest.of(body)
    folder = folder_of(tmp_path / "x", {**EMPTY, blob_path(digest): body})
    with opened(str(folder)) as layout, pytest.raises(LayoutInvalid, match=f"the manifest {digest}"):
        tree_of(layout, Index((Root(digest, "", len(body)),)))


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_MANIFEST", 3)
    digest = Digest.of(b"four")
    folder = folder_of(tmp_path / "x", {**EMPTY, blob_path(digest): b"four"})
    with opened(str(folder)) as layout, pytest.raises(LayoutInvalid, match="larger than 3"):
        tree_of(layout, Index((Root(digest, "", 4),)))


def test_a_long_list_is_cut() -> None:
    assert listed(Digest.of(bytes([number])) for number in range(22)).endswith(" and 2 more")
