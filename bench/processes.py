"""Server processes under measurement: started with a deadline, counted through /proc, ended by id."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
READY_WITHIN = 20.0
"""Seconds a server has for its first 200; the slowest peer needs a tenth of it on a busy machine."""
END_WITHIN = 10.0
"""Seconds between SIGTERM and SIGKILL."""
POLL = 0.002
"""Seconds between two looks at a starting server: the precision of the start line."""


class BenchError(Exception):
    """A server or a load generator did not do what it was started for."""


class Memory(NamedTuple):
    """Bytes of a process tree: resident now, and the sum of each process's own peak."""

    resident: int
    peak: int


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    environment: Mapping[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name, which may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """`root` and its descendants, as far as they are still there."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, children that ended and were waited for included."""
    return sum(_cpu_of(pid) for pid in tree(root)) / TICKS


def _cpu_of(pid: int) -> int:
    try:
        return sum(int(ticks) for ticks in _stat(pid)[11:15])
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended just now, and counts as a child of its parent


def memory(root: int) -> Memory:
    found = [_memory_of(pid) for pid in tree(root)]
    return Memory(sum(one.resident for one in found), sum(one.peak for one in found))


def _memory_of(pid: int) -> Memory:
    """Nothing for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return Memory(0, 0)
    fields = dict(line.partition(":")[::2] for line in lines)
    resident, peak = (int(fields.get(name, "0").split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Memory(resident, peak)


def unverified() -> ssl.SSLContext:
    """For clients of servers whose certificates were made a moment ago and are checked by nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def answers(port: int, path: str, secure: bool = False) -> bool:
    """Whether the server says 200 to one GET, or 401: a registry may want to know who asks."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            if secure:
                connection = stack.enter_context(unverified().wrap_socket(connection))
            connection.sendall(request)
            return connection.recv(64).split(b" ")[1:2] in ([b"200"], [b"401"])
    except OSError:
        return False


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{process.args!r} is not ready (exit {process.returncode}):\n{tail}")
        time.sleep(POLL)


def _born(pid: int) -> str | None:
    """When the process began, in ticks since boot: with the id it tells one process from a later one."""
    try:
        return _stat(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL after END_WITHIN: of the process, then of descendants that outlived it."""
    descendants = {pid: _born(pid) for pid in tree(process.pid)[1:]}
    process.terminate()
    try:
        process.wait(END_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, born in descendants.items():
        if born is not None and _born(pid) == born:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def running(command: Command, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, its output appended to `log`; ended on the way out."""
    environment = {**os.environ, **command.environment}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command.argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            end(process)
