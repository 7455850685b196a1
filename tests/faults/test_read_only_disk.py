"""A file system that stops itself: what is here is served, all else passes through, and nothing half-starts.

As root: file systems are mounted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.e2e.disks import loop_disk, stop_writing
from tests.faults.client import ask
from tests.faults.house import House, hosts

pytestmark = pytest.mark.root

MIB = 1 << 20
UNCACHED = "cacheproxy_uncached_total"


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    with loop_disk(folder / "disk", 64 * MIB) as mounted:
        yield mounted


def mount_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=10)


async def ready(h: House) -> tuple[int, bytes]:
    heard = await ask(h._operators, "/readyz?verbose")
    return heard.status, heard.body


async def test_pulls_go_on_when_the_disk_stops_taking_writes(disk: Path) -> None:
    async with hosts(disk) as h:
        old, new = h.image("library/old", bytes(MIB)), h.image("library/new", bytes(range(256)) * 4096)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.faults.house.nothing_wrong", lambda state: None)  # no row can be trusted
            async with h.daemon():
                await h.pull(old)
                await h.quiet()
                before = await h.metric(UNCACHED)
                stop_writing(disk)
                for _ in range(2):
                    await h.pull(old)
                    await h.pull(new)
                assert await h.metric(UNCACHED) > before
                status, told = await ready(h)
                assert status == 503
                assert b"store: OSError: [Errno 30] no file can be made in " in told
                h.cut()


@pytest.mark.parametrize("stop", [stop_writing, mount_read_only])
async def test_nothing_is_started_on_a_read_only_disk(disk: Path, stop: Callable[[Path], None]) -> None:
    async with hosts(disk) as h:
        async with h.daemon():
            await h.pull(h.image("library/old", bytes(MIB)))
        stop(disk)
        command = [sys.executable, "-m", "cacheproxy", "serve", "--config", str(h.file)]
        with trio.fail_after(30):
            done = await trio.run_process(command, capture_stderr=True, check=False, cwd=Path.cwd())
        assert done.returncode == 1
        said = done.stderr.decode().splitlines()
        assert [line for line in said if line.startswith("cacheproxy: ")] == said[-1:]
        assert "ead-only file system" in said[-1]
        assert not any("Traceback" in line or "serving" in line for line in said)
