from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from cacheproxy.edge.listeners import UNIX_MODE, ListenError, describe, open_listeners


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def connect(listener: socket.socket) -> None:
    with socket.socket(listener.family, socket.SOCK_STREAM) as client:
        client.connect(listener.getsockname())


@pytest.mark.parametrize(("address", "begin"), [("127.0.0.1:0", "127.0.0.1:"), ("[::1]:0", "[::1]:")])
def test_tcp(address: str, begin: str) -> None:
    (listener,) = open_listeners([address])
    with listener:
        connect(listener)
        assert describe(listener).startswith(begin)
        assert not listener.getblocking()
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_inherit_what_the_listener_is_tuned_to() -> None:
    (listener,) = open_listeners(["127.0.0.1:0"])
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_ipv6_does_not_take_ipv4_along() -> None:
    (six,) = open_listeners(["[::]:0"])
    with six:
        close(open_listeners([f"0.0.0.0:{six.getsockname()[1]}"]))


def test_several(tmp_path: Path) -> None:
    listeners = open_listeners(["127.0.0.1:0", f"unix:{tmp_path / 's'}"])
    assert [listener.family for listener in listeners] == [socket.AF_INET, socket.AF_UNIX]
    close(listeners)


def test_a_port_can_be_taken_again_at_once() -> None:
    (first,) = open_listeners(["127.0.0.1:0"])
    address = describe(first)
    with first, socket.create_connection(first.getsockname()) as client:
        accepted, _ = first.accept()
        accepted.close()
        assert client.recv(1) == b""
    close(open_listeners([address]))


def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = open_listeners([f"unix:{path}"])
    with listener:
        connect(listener)
        assert describe(listener) == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == UNIX_MODE


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    close(open_listeners([address]))
    (listener,) = open_listeners([address])
    with listener:
        connect(listener)


def test_a_socket_in_use_is_not_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    (listener,) = open_listeners([address])
    with listener:
        with pytest.raises(ListenError, match="in use"):
            open_listeners([address])
        connect(listener)


def test_any_other_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="no socket"):
        open_listeners([f"unix:{path}"])
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    "address",
    ["", "5000", ":5000", "::1:5000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "[::1]"],
)
def test_what_is_no_address_says_how_to_write_one(address: str) -> None:
    with pytest.raises(ListenError, match="host:port"):
        open_listeners([address])


def test_a_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="too long"):
        open_listeners([f"unix:{tmp_path / ('a' * 200)}"])


def test_all_or_none() -> None:
    (taken,) = open_listeners(["127.0.0.1:0"])
    (free,) = open_listeners(["127.0.0.1:0"])
    address = describe(free)
    free.close()
    with taken, pytest.raises(ListenError, match=r"127\.0\.0\.1:\d+: Address already in use"):
        open_listeners([address, describe(taken)])
    close(open_listeners([address]))


def test_a_socket_that_was_opened_for_us_is_taken_by_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert open_listeners(["systemd:http"], {"http": [ours]}) == [ours]
        connect(ours)
        assert not ours.getblocking()
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_one_name_may_be_several_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        assert open_listeners(["systemd:http"], {"http": [one, other]}) == [one, other]


def test_a_name_that_was_not_passed_is_refused_with_those_that_were() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        with pytest.raises(ListenError, match=r'systemd:web: no socket of this name.*: "http"$'):
            open_listeners(["systemd:web"], {"http": [ours]})
        with pytest.raises(ListenError, match=r"but: none$"):
            open_listeners(["systemd:web"])


@pytest.mark.parametrize(
    ("family", "kind", "words"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, "is no stream"),
        (socket.AF_INET, socket.SOCK_STREAM, "does not listen"),
        (socket.AF_NETLINK, socket.SOCK_RAW, "is neither of the internet's"),
    ],
)
def test_what_cannot_accept_connections_is_refused(
    family: socket.AddressFamily, kind: socket.SocketKind, words: str
) -> None:
    with socket.socket(family, kind) as wrong, pytest.raises(ListenError, match=f"^systemd:x: {words}"):
        open_listeners(["systemd:x"], {"x": [wrong]})
