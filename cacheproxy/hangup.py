"""SIGHUP before anybody listens to it: kept by the kernel, not the end of a daemon that starts."""

from __future__ import annotations

import signal


def hold() -> None:
    """From here on it waits. First of all, before the imports: they take most of a start's time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))


def release() -> None:
    """Whoever listens hears it now, if it came meanwhile. So do programs started from here on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
