from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cacheproxy.store.errors import InUse, StoreSuspect
from cacheproxy.store.running import NAME, Running, running

KILLED = """
import os, signal, sys
from pathlib import Path
from cacheproxy.store.running import Running
running = Running.take(Path(sys.argv[1]))
running.starts()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_new_folder_had_no_unclean_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    running = Running.take(state)
    assert not running.unclean
    assert (state / NAME).stat().st_mode & 0o777 == 0o600
    running.close()


def test_an_end_in_order_leaves_nothing_to_say(tmp_path: Path) -> None:
    running = Running.take(tmp_path)
    running.starts()
    running.ended()
    running.close()
    again = Running.take(tmp_path)
    assert not again.unclean
    again.close()


def test_a_kill_is_seen_and_ends_the_lock(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, timeout=30)
    assert ended.returncode == -9
    running = Running.take(tmp_path)
    assert running.unclean
    running.close()


def test_whoever_only_took_the_folder_forgets_no_unclean_end(tmp_path: Path) -> None:
    first = Running.take(tmp_path)
    first.starts()
    first.close()
    for _ in range(2):
        looking = Running.take(tmp_path)
        assert looking.unclean
        looking.close()


def test_one_at_a_time(tmp_path: Path) -> None:
    running = Running.take(tmp_path)
    with pytest.raises(InUse, match=str(tmp_path)):
        Running.take(tmp_path)
    running.close()
    Running.take(tmp_path).close()


def test_no_text_takes_more_room_than_the_other(tmp_path: Path) -> None:
    running = Running.take(tmp_path)
    sizes = [(tmp_path / NAME).stat().st_size]
    for write in (running.starts, running.ended):
        write()
        sizes.append((tmp_path / NAME).stat().st_size)
    running.close()
    assert len(set(sizes)) == 1


def test_what_root_makes_is_the_folders_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda fd, user, group: given.append((user, group)))
    for _ in range(2):
        Running.take(tmp_path).close()
    owner = tmp_path.stat()
    assert given == [(owner.st_uid, owner.st_gid)]


def test_an_end_without_room_to_note_it_is_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with running(tmp_path):
        monkeypatch.setattr(os, "fdatasync", full)
    monkeypatch.undo()
    running_again = Running.take(tmp_path)
    running_again.close()


def test_a_disk_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    said = f"cannot write {tmp_path / NAME}: Read-only file system"
    with pytest.raises(OSError, match=said), running(tmp_path):
        monkeypatch.setattr(os, "pwrite", read_only)


def test_an_end_on_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StoreSuspect), running(tmp_path):
        monkeypatch.setattr(os, "fdatasync", broken)
