"""What the service manager is told, sd_notify(3), and the sockets that it opened for us, sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Mapping, MutableMapping

FIRST = 3
"""The descriptor after standard input, output and error."""


def ready(status: str, environment: Mapping[str, str] = os.environ) -> None:
    """The listeners are bound: units that wait for this one may start."""
    _notify(f"READY=1\nSTATUS={_line(status)}", environment)


def reloading(environment: Mapping[str, str] = os.environ) -> None:
    """The configuration is read again; `ready` says when that has ended, however it did."""
    # The time tells the manager which SIGHUP this answers, sd_notify(3).
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", environment)


def stopping(status: str, environment: Mapping[str, str] = os.environ) -> None:
    """No new connection is taken; what runs is being finished."""
    _notify(f"STOPPING=1\nSTATUS={_line(status)}", environment)


def status(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """One line for `systemctl status`."""
    _notify(f"STATUS={_line(text)}", environment)


def passed_sockets(environment: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """By name (FileDescriptorName=), none when they are another process's. Call once, before any fork.

    The environment forgets them, so that no child takes its own descriptors for them.
    """
    process, count, names = (environment.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    passed: dict[str, list[socket.socket]] = defaultdict(list)
    if process != str(os.getpid()) or not count.isdecimal():
        return dict(passed)
    named = names.split(":") if names else []
    for number in range(int(count)):
        os.set_inheritable(FIRST + number, False)
        name = named[number] if number < len(named) else "unknown"  # the word of sd_listen_fds_with_names(3)
        try:
            passed[name].append(socket.socket(fileno=FIRST + number))
        except OSError as error:
            raise OSError(error.errno, f'what the service manager passed as "{name}" is no socket') from error
    return dict(passed)


def _line(text: str) -> str:
    # A line end would begin another assignment.
    return " ".join(text.split())


def _notify(message: str, environment: Mapping[str, str]) -> None:
    """Send, or do nothing where no service manager listens: the daemon serves just as well without one."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace, unix(7)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            # The loop never waits for a manager that does not read.
            manager.setblocking(False)
            manager.sendto(message.encode(), address)
    except OSError:
        return
