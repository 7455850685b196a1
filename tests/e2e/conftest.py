"""Folders, the library of images, deadlines, logs of what failed, and the count of clients that ran."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.clients import CLIENTS
from tests.e2e.disks import memory_disk, unmount_below
from tests.e2e.programs import TOOLS, USED
from tests.e2e.stores import Shared
from tests.e2e.stores import shared as shared_stores
from tests.seaweed import Seaweed

TEST_WITHIN = 300
"""Seconds for one test, whatever its clients do."""
CLIENT_BYTES = 4 << 30
"""Most that a client's store may take; a vfs store of the images takes an eighth of it."""
LOG_TAIL = 3000
"""Characters of each server's log that a failure shows."""

PROGRAMS = frozenset(
    ("buildah", "conformance", "cosign", "crane", "ctr", "docker", "oras", "podman", "regctl", "skopeo")
)
"""What has to work with our own repositories."""

HERE = Path(__file__).parent
RAN = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAN] = set()
    if os.geteuid() != 0:
        pytest.exit("end-to-end tests start container engines: run them as root", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TEST_WITHIN))


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """The folder of all state. Not pytest's own: unpacked layers are not worth keeping, and podman wants
    paths below 50 characters."""
    with tempfile.TemporaryDirectory(prefix="e2e-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def library(scratch: Path) -> images.Library:
    """All images, in a registry's store that nobody serves yet."""
    folder = scratch / "library"
    folder.mkdir()
    return images.fill(folder)


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def shared(seaweed_server: Seaweed, folder: Path) -> Iterator[Shared]:
    with shared_stores(seaweed_server, folder) as stores:
        yield stores


@pytest.fixture(scope="session")
def memory(scratch: Path) -> Iterator[Path]:
    """A disk for clients: containerd syncs what it unpacks, which on a real one takes ten times as long."""
    with memory_disk(scratch / "memory", CLIENT_BYTES) as disk:
        yield disk


@pytest.fixture
def client_folder(memory: Path) -> Iterator[Path]:
    """For one client's store."""
    with tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as made:
        yield Path(made)
        unmount_below(Path(made))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and isinstance(item, pytest.Function):
        if report.passed and hasattr(item, "callspec"):
            item.config.stash[RAN].add(str(item.callspec.params.get("client")))
        folders = (item.funcargs.get(name) for name in ("folder", "client_folder"))
        if report.failed:
            report.sections += [
                section for folder in folders if isinstance(folder, Path) for section in _logs(folder)
            ]
    return report


def _logs(folder: Path) -> list[tuple[str, str]]:
    logs = (*folder.glob("*.log"), *folder.glob("*/*.log"))
    return [(f"{log.name} in {log.parent.name}", log.read_text()[-LOG_TAIL:]) for log in logs]


def _clients_that_ran(config: pytest.Config) -> set[str]:
    return config.stash[RAN] & set(CLIENTS)


def _missing(config: pytest.Config) -> list[str]:
    return sorted((set(CLIENTS) - _clients_that_ran(config)) | (PROGRAMS - USED))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Green without one of the clients is red: it would mean that nothing was proven of it."""
    whole = any(
        Path(session.config.invocation_params.dir, name).resolve() == HERE for name in session.config.args
    )
    if whole and not session.config.option.keyword and _missing(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ran = sorted(_clients_that_ran(config))
    terminalreporter.write_line(
        f"e2e: {len(ran)} of {len(CLIENTS)} clients pulled well (tools in {TOOLS}): {', '.join(ran)}"
    )
    if missing := _missing(config):
        terminalreporter.write_line(f"e2e: nothing was proven with {', '.join(missing)}")
