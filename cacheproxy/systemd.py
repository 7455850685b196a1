"""What the service manager is told: sd_notify(3), over the datagram socket named in the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def ready(status: str, environment: Mapping[str, str] = os.environ) -> None:
    """The listeners are bound: units that wait for this one may start."""
    _notify(f"READY=1\nSTATUS={_line(status)}", environment)


def stopping(status: str, environment: Mapping[str, str] = os.environ) -> None:
    """No new connection is taken; what runs is being finished."""
    _notify(f"STOPPING=1\nSTATUS={_line(status)}", environment)


def status(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """One line for `systemctl status`."""
    _notify(f"STATUS={_line(text)}", environment)


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
