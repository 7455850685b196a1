"""Processes as /proc tells of them, and their end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.processes import BenchError, Command, cpu_seconds, memory, running, tree, wait_until

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
BUSY = "while True: pass"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('deaf', flush=True)
time.sleep(60)
"""


def python(code: str) -> Command:
    return Command((sys.executable, "-c", code), {})


def ended(pid: int) -> bool:
    """A zombie has ended: whether it is reaped is up to the init of the machine."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


def wait_for(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tree_holds_the_children_and_all_of_it_is_ended(tmp_path: Path) -> None:
    with running(python(PARENT), tmp_path / "log") as process:
        wait_for(lambda: len(tree(process.pid)) == 2)
        child = tree(process.pid)[1]
    assert process.returncode is not None
    wait_for(lambda: ended(child))


def test_process_that_ignores_the_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.processes.END_WITHIN", 0.1)
    log = tmp_path / "log"
    with running(python(DEAF), log) as process:
        wait_for(lambda: log.read_text() == "deaf\n")
    assert process.returncode == -9


def test_processor_time_of_a_busy_process_grows(tmp_path: Path) -> None:
    with running(python(BUSY), tmp_path / "log") as process:
        before = cpu_seconds(process.pid)
        wait_for(lambda: cpu_seconds(process.pid) > before)


def test_peak_is_no_less_than_what_is_resident() -> None:
    now = memory(os.getpid())
    assert 0 < now.resident <= now.peak


def test_start_that_fails_tells_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    failing = running(python("raise SystemExit('no such configuration')"), log)
    with failing as process, pytest.raises(BenchError, match="no such configuration"):
        wait_until(lambda: False, process, log)


def test_environment_is_added_to_ours(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = Command(
        (sys.executable, "-c", "import os; print(os.environ['MARK'], 'PATH' in os.environ)"), {"MARK": "here"}
    )
    with running(command, log) as process:
        process.wait(10)
    assert log.read_text() == "here True\n"
