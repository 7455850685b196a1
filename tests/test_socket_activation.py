"""Sockets that the service manager opened: passed to the real program as systemd passes them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SERVICE_MANAGER = """
import os, sys
for number, descriptor in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(descriptor, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
os.execv(sys.executable, [sys.executable, "-m", "cacheproxy", "serve", "--config", sys.argv[3]])
"""
"""Becomes the daemon, after moving the sockets to where systemd puts them. The kernel gave us numbers above
those, since standard input, output and error and two of ours are below.
"""


def configuration(folder: Path, *listen: str) -> Path:
    file = folder / "c.toml"
    text = ", ".join(f'"{address}"' for address in listen)
    file.write_text(
        f'[server]\nlisten = [{text}]\nmetrics = "127.0.0.1:0"\n[storage]\nstate = "{folder}/state"\n'
    )
    return file


@contextmanager
def daemon(
    file: Path, sockets: Mapping[str, socket.socket], *, stranger: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """`stranger`: what LISTEN_PID is off from the daemon's own."""
    high = [os.dup2(listener.fileno(), 100 + n) for n, listener in enumerate(sockets.values())]
    environment = {
        "PATH": os.environ["PATH"],
        "LISTEN_FDS": str(len(high)),
        "LISTEN_FDNAMES": ":".join(sockets),
    }
    arguments = [sys.executable, "-c", SERVICE_MANAGER, ",".join(map(str, high)), str(stranger), str(file)]
    process = subprocess.Popen(
        arguments,
        pass_fds=high,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    for descriptor in high:
        os.close(descriptor)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def status(client: socket.socket) -> bytes:
    with client:
        client.settimeout(30)
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return client.recv(4096).split(b" ")[1]


def test_clients_that_came_before_the_daemon_are_served_and_each_name_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
        early = socket.create_connection(tcp.getsockname())
        file = configuration(tmp_path, "systemd:http", "systemd:local")
        with daemon(file, {"http": tcp, "local": unix}):
            assert status(early) == b"200"
            local = socket.socket(socket.AF_UNIX)
            local.connect(str(path))
            assert status(local) == b"200"


def test_the_port_stays_open_while_the_daemon_restarts(tmp_path: Path) -> None:
    file = configuration(tmp_path, "systemd:http")
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        with daemon(file, {"http": tcp}):
            assert status(socket.create_connection(tcp.getsockname())) == b"200"
        between = socket.create_connection(tcp.getsockname())
        with daemon(file, {"http": tcp}):
            assert status(between) == b"200"


def test_a_socket_that_nobody_listens_on_is_warned_of(tmp_path: Path) -> None:
    file = configuration(tmp_path, "systemd:http")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(("127.0.0.1", 0)) as other,
        daemon(file, {"http": tcp, "web": other}) as process,
    ):
        assert status(socket.create_connection(tcp.getsockname())) == b"200"
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert '"a socket of the service manager is not in server.listen","name":"web"' in errors
    assert '"name":"http"' not in errors


@pytest.mark.parametrize(
    ("name", "stranger", "words"),
    [
        ("web", 0, 'systemd:http: no socket of this name was passed to us, but: "web"'),
        ("http", 1, "systemd:http: no socket of this name was passed to us, but: none"),
    ],
    ids=["another name", "another process's"],
)
def test_what_is_not_there_is_one_line_and_no_daemon(
    name: str, stranger: int, words: str, tmp_path: Path
) -> None:
    file = configuration(tmp_path, "systemd:http")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        daemon(file, {name: tcp}, stranger=stranger) as process,
    ):
        _, errors = process.communicate(timeout=30)
    assert errors.splitlines()[-1] == f"cacheproxy: {words}"
    assert process.returncode == 1
