"""SIGHUP at any moment of a start, to a real process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

GOOD = '[server]\nlisten = ["127.0.0.1:0"]\nmetrics = "127.0.0.1:0"\n[storage]\nstate = "state"\n'


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cacheproxy", *arguments],
        env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        # Whoever runs the tests may be immune to hang-ups, by nohup, and what is ignored is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def test_a_daemon_that_still_starts_reads_the_file_again_once_it_serves(
    tmp_path: Path, manager: socket.socket
) -> None:
    file = tmp_path / "c.toml"
    os.mkfifo(file)  # whoever opens it waits for the other: the daemon stands still while it reads its file
    process = start(tmp_path, "serve", "--config", file)
    try:
        with file.open("w") as writing:
            process.send_signal(signal.SIGHUP)
            writing.write(GOOD)
        file.unlink()
        file.write_text("nonsense")
        assert manager.recv(4096).startswith(b"READY=1\n")
        assert manager.recv(4096).startswith(b"RELOADING=1\n")
        assert b"the configuration was refused" in manager.recv(4096)
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_other_commands_end_with_their_terminal(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    os.mkfifo(file)
    process = start(tmp_path, "check-config", file)
    with file.open("w"):
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGHUP
