from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.store.keyfile import read_or_make


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    key = read_or_make(path)
    assert len(bytes.fromhex(key)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_make(path) == key
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]


def test_another_file_gets_another_key(tmp_path: Path) -> None:
    assert read_or_make(tmp_path / "a") != read_or_make(tmp_path / "b")


def test_what_a_kill_left_of_one_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "secret.key.new").write_text("half")
    assert len(read_or_make(tmp_path / "secret.key")) == 64


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret.key"
    read_or_make(path)
    path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600"):
        read_or_make(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    read_or_make(tmp_path / "real")
    (tmp_path / "secret.key").symlink_to("real")
    with pytest.raises(OSError, match="symbolic links"):
        read_or_make(tmp_path / "secret.key")
