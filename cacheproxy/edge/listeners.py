"""Where we listen: "host:port", "[::1]:5000", "unix:/path"; "systemd:name" is what systemd opened for us.

Any error says which address and why.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

BACKLOG = 4096
"""The kernel caps it at net.core.somaxconn."""
UNIX_MODE = 0o660
"""Who may connect to a unix socket counts as this host: its owner and its group."""
_KEEPALIVE_IDLE = 60
_UNIX = "unix:"
_PASSED = "systemd:"

Passed = Mapping[str, Sequence[socket.socket]]
"""What the service manager opened, by name."""

_tcp = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:]+)):(?P<port>[0-9]{1,5})").fullmatch


class ListenError(Exception):
    """An address that cannot be listened on; the message is for whoever wrote it into the configuration."""


def open_listeners(addresses: Iterable[str], passed: Passed = MappingProxyType({})) -> list[socket.socket]:
    """Bound, listening, non-blocking sockets; all or none. A name stands for all its addresses."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened += _open(address, passed)
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _open(address: str, passed: Passed) -> list[socket.socket]:
    if address.startswith(_UNIX):
        return [_open_unix(address.removeprefix(_UNIX))]
    if address.startswith(_PASSED):
        return _take(address, passed)
    return _open_tcp(address)


def _take(address: str, passed: Passed) -> list[socket.socket]:
    """What was opened for us already, once it is known to be what we can accept connections from."""
    listeners = list(passed.get(address.removeprefix(_PASSED), ()))
    if not listeners:
        names = ", ".join(f'"{name}"' for name in passed) or "none"
        raise ListenError(f"{address}: no socket of this name was passed to us, but: {names}")
    for listener in listeners:
        if listener.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise ListenError(f"{address}: is neither of the internet's nor a unix socket")
        if listener.type != socket.SOCK_STREAM:
            raise ListenError(f"{address}: is no stream; write ListenStream= in the socket unit")
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ListenError(f"{address}: does not listen; write Accept=no in the socket unit")
        tune(listener)
    return listeners


def tune(listener: socket.socket) -> None:
    """What connections inherit from their listener, so that accepting one costs no further calls.

    Keep-alive probes find clients that vanished while an upstream is waited for: no bytes flow then.
    """
    listener.setblocking(False)
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)


def describe(listener: socket.socket) -> str:
    """As it would be written in the configuration."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{_UNIX}{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open_tcp(address: str) -> list[socket.socket]:
    match = _tcp(address)
    if match is None or int(match["port"]) > 65535:
        raise ListenError(f'{address}: write "host:port", "[::1]:5000", "unix:/path" or "systemd:name"')
    try:
        found = socket.getaddrinfo(match["v6"] or match["host"], int(match["port"]), type=socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror}") from error
    opened: list[socket.socket] = []
    try:
        for family, name in dict.fromkeys((family, name) for family, _, _, _, name in found):
            listener = socket.socket(family, socket.SOCK_STREAM)
            opened.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(name)
            listener.listen(BACKLOG)
            tune(listener)
    except OSError as error:
        for listener in opened:
            listener.close()
        raise ListenError(f"{address}: {error.strerror}") from error
    return opened


def _open_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(path)
        # Nobody can connect before listen, so the mode is right from the first connection on.
        Path(path).chmod(UNIX_MODE)
        listener.listen(BACKLOG)
        tune(listener)
    except OSError as error:
        listener.close()
        raise ListenError(f"{_UNIX}{path}: {error.strerror or error}") from error
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more. OSError: it is in use, or no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "is there, and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
