from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cacheproxy import systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def environment(manager: socket.socket) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname()}


def test_ready_is_one_message_with_a_status(manager: socket.socket) -> None:
    systemd.ready("listening on 127.0.0.1:5000", environment(manager))
    assert told(manager) == ["READY=1", "STATUS=listening on 127.0.0.1:5000"]


def test_stopping_is_told(manager: socket.socket) -> None:
    systemd.stopping("finishing 3 responses", environment(manager))
    assert told(manager) == ["STOPPING=1", "STATUS=finishing 3 responses"]


def test_a_status_cannot_smuggle_another_assignment(manager: socket.socket) -> None:
    systemd.status("down\nMAINPID=1\r", environment(manager))
    assert told(manager) == ["STATUS=down MAINPID=1"]


def test_an_abstract_address_is_understood() -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind("")  # the kernel chooses an abstract name
        listening.settimeout(5)
        name = listening.getsockname()[1:].decode()
        systemd.status("up", {"NOTIFY_SOCKET": f"@{name}"})
        assert told(listening) == ["STATUS=up"]


def test_without_a_manager_nothing_happens() -> None:
    systemd.ready("up", {})


def test_a_manager_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    systemd.ready("up", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_a_manager_that_does_not_read_stops_nothing(manager: socket.socket) -> None:
    for _ in range(2000):
        systemd.status("x" * 1000, environment(manager))
    assert told(manager) == ["STATUS=" + "x" * 1000]


def test_sockets_of_another_process_are_none_of_ours_and_the_environment_forgets_them() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert systemd.passed_sockets(environment) == {}
    assert environment == {"HOME": "/"}


def test_without_passed_sockets_there_are_none() -> None:
    assert systemd.passed_sockets({}) == {}


def test_reloading_is_told_with_the_time_of_the_monotonic_clock(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    systemd.reloading(environment(manager))
    state, moment = told(manager)
    assert state == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
