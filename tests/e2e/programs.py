"""The programs that `tests/e2e/install` brings, run so that none can reach a public registry."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(os.environ.get("CACHEPROXY_TOOLS", REPOSITORY / ".tools")).absolute()
COMMAND_WITHIN = 120.0
"""Seconds for one command of a client; the slowest, a pull into a vfs store, takes a tenth of it."""
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens on the discard port: a client that strays from loopback fails at once."""


USED = set[str]()
"""Programs that did what a test asked of them, by name."""


class ProgramError(Exception):
    """A program is missing, or ended with an error."""


def installed(name: str) -> str:
    """A program that came by `go install`."""
    return _found(shutil.which(TOOLS / "bin" / name), name)


def packaged(name: str) -> str:
    """A program of a Debian package, whatever else of that name is earlier in PATH."""
    return _found(shutil.which(name, path="/usr/bin:/usr/sbin"), name)


def _found(path: str | None, name: str) -> str:
    if path is None:
        raise ProgramError(f"{name} is not there: run tests/e2e/install as root")
    return path


def environment(home: Path) -> dict[str, str]:
    """For clients and servers: a home of their own, and no way out but loopback, which takes no proxy."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
    }


def run(command: Sequence[str | Path], home: Path, more: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that must end well, in time. Raises ProgramError with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**environment(home), **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{' '.join(words)} still ran after {COMMAND_WITHIN:.0f} s") from error
    if done.returncode:
        raise ProgramError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    USED.add(Path(words[0]).name)
    return done.stdout
