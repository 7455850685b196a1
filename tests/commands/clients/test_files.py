from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cacheproxy.commands.clients.files import BACKUP, CannotWrite, Files
from cacheproxy.commands.clients.tools import TOOLS, Cache, CannotMerge, Planned

CACHE = Cache("http://127.0.0.1:5000", ("docker.io", "quay.io"), "docker.io")
PLAN = TOOLS["docker"].files(CACHE)


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A daemon.json that somebody has."""
    path = tmp_path / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"debug": true}')
    path.chmod(0o640)
    return path


def test_undo_leaves_nothing_behind(tmp_path: Path, engine: Path) -> None:
    before = tree(tmp_path)
    files = Files(tmp_path, "docker")
    assert len(files.write(PLAN)) == 3
    assert json.loads(engine.read_text())["registry-mirrors"] == ["http://127.0.0.1:5000"]
    assert len(files.undo()) == 3
    assert tree(tmp_path) == before
    assert not (tmp_path / "etc/docker/certs.d").exists()
    assert files.undo() == []


def test_what_was_there_is_kept_with_its_rights(tmp_path: Path, engine: Path) -> None:
    files = Files(tmp_path, "docker")
    files.write(PLAN)
    backup = engine.with_name(engine.name + BACKUP)
    assert backup.read_text() == '{"debug": true}'
    assert {stat.S_IMODE(path.stat().st_mode) for path in (engine, backup)} == {0o640}
    files.undo()
    assert stat.S_IMODE(engine.stat().st_mode) == 0o640


def test_writing_again_starts_from_what_was_there_first(tmp_path: Path, engine: Path) -> None:
    before = tree(tmp_path)
    files = Files(tmp_path, "docker")
    files.write(PLAN)
    moved = Cache("http://127.0.0.1:6000", ("docker.io",), "docker.io")
    files.write(TOOLS["docker"].files(moved))
    assert json.loads(engine.read_text())["registry-mirrors"] == ["http://127.0.0.1:6000"]
    assert not (tmp_path / "etc/docker/certs.d/quay.io").exists()
    files.undo()
    assert tree(tmp_path) == before


def test_what_was_edited_since_is_not_undone(tmp_path: Path, engine: Path) -> None:
    files = Files(tmp_path, "docker")
    files.write(PLAN)
    engine.write_text('{"debug": false}')
    written = tree(tmp_path)
    for act in (files.undo, lambda: files.write(PLAN)):
        with pytest.raises(CannotWrite, match="was edited since it was written"):
            act()
    assert tree(tmp_path) == written


def test_a_file_that_somebody_removed_is_put_back(tmp_path: Path, engine: Path) -> None:
    files = Files(tmp_path, "docker")
    files.write(PLAN)
    engine.unlink()
    files.undo()
    assert engine.read_text() == '{"debug": true}'


def test_one_file_that_cannot_be_merged_stops_all(tmp_path: Path, engine: Path) -> None:
    def refuse(before: str | None) -> str:
        raise CannotMerge("is not ours")

    before = tree(tmp_path)
    with pytest.raises(CannotWrite, match=r"etc/x is not ours"):
        Files(tmp_path, "docker").write([*PLAN, Planned("etc/x", refuse)])
    assert tree(tmp_path) == before


def test_what_a_crash_left_can_be_undone(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(tmp_path)
    files = Files(tmp_path, "docker")

    def crash(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cacheproxy.commands.clients.files._put", crash)
    with pytest.raises(KeyboardInterrupt):
        files.write(PLAN)
    files.undo()
    assert tree(tmp_path) == before


def test_other_tools_have_journals_of_their_own(tmp_path: Path) -> None:
    Files(tmp_path, "docker").write(PLAN)
    Files(tmp_path, "podman").write(TOOLS["podman"].files(CACHE))
    Files(tmp_path, "docker").undo()
    assert (tmp_path / "etc/containers/registries.conf.d/cacheproxy.conf").exists()
