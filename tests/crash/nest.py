"""Forks a daemon for each line of JSON on standard input: {"config", "log", "plan", "quick", "grace"}.

Says its process id, and how it ended, as one number a line each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cacheproxy import app, config
from cacheproxy.registry import orphans
from tests.crash import quick as quick_times
from tests.crash import steps


def main() -> None:
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _daemon(**json.loads(line))
        print(pid, flush=True)  # noqa: T201
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # noqa: T201


def _daemon(config: str, log: str, plan: dict[str, Any] | None, quick: bool, grace: float | None) -> None:
    try:
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(output, standard)
        orphans.FIRST = orphans.AGAIN = 0.0  # files without a row are looked for at once
        if quick:
            quick_times.arm()
        if grace is not None:
            orphans.GRACE = grace
        if plan is not None:
            steps.arm(**plan)
        app.run(_load(config))
    except BaseException:  # noqa: BLE001 - the fork must not become a second nest
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)


def _load(file: str) -> config.Config:
    return config.load(Path(file))


if __name__ == "__main__":
    main()
