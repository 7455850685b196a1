"""What is measured beside this daemon, and the load generator: found where it is, else installed.

Everything but Debian's packages goes into `.tools` (or $CACHEPROXY_TOOLS), which the end-to-end tests share.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("CACHEPROXY_TOOLS", REPOSITORY / ".tools")).absolute()
REGISTRY = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2"
DRAYAGE = "0.2.9"
INSTALL_WITHIN = 900
"""Seconds: distribution and the 300 modules below it are compiled from source."""


@dataclass(frozen=True)
class Tool:
    name: str
    find: Callable[[], str | None]
    commands: tuple[str, ...]
    """Run one after the other by a shell in which $TOOLS is the folder."""
    version: tuple[str, ...]
    """Arguments that make it tell its version in the first line it prints."""


def _debian(package: str) -> tuple[str, ...]:
    install = f"apt-get install -y --no-install-recommends {package}"
    return (f"{install} || {{ apt-get update && {install}; }}",)


def _in_folder(path: str) -> Callable[[], str | None]:
    return lambda: shutil.which(FOLDER / path)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("wrk", lambda: shutil.which("wrk"), _debian("wrk"), ("-v",)),
        Tool(
            "nginx",
            lambda: shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin"),
            _debian("nginx-light"),
            ("-v",),
        ),
        Tool(
            "registry",
            _in_folder("bin/registry"),
            (f'CGO_ENABLED=0 GOBIN="$TOOLS/bin" go install {REGISTRY}',),
            ("--version",),
        ),
        Tool(
            "drayage",
            _in_folder("drayage/bin/drayage"),
            (
                f'"{sys.executable}" -m venv "$TOOLS/drayage"',
                f'"$TOOLS/drayage/bin/pip" install --quiet drayage=={DRAYAGE}',
            ),
            ("--version",),
        ),
    )
}


def path(name: str) -> str:
    """Where the tool is, after installing it if need be. Raises BenchError where that does not work."""
    tool = TOOLS[name]
    return tool.find() or _install(tool)


def _install(tool: Tool) -> str:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in tool.commands:
            print(f"installing {tool.name}: {command}", flush=True)
            _shell(command)
    found = tool.find()
    if found is None:
        raise BenchError(f"{tool.name} is not there after its installation")
    return found


def _shell(command: str) -> None:
    environment = {**os.environ, "TOOLS": str(FOLDER), "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["sh", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=INSTALL_WITHIN,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{command} ended with {done.returncode}: {done.stderr[-500:]}")


def version(name: str) -> str:
    """The number a tool tells of itself: "1.22.1"."""
    told = subprocess.run(
        [path(name), *TOOLS[name].version], capture_output=True, text=True, timeout=10, check=False
    )
    number = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
    return number.group() if number else "?"
