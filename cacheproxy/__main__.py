"""The program."""

from __future__ import annotations

import sys

from cacheproxy import hangup


def run() -> None:
    if sys.argv[1:2] == ["serve"]:  # to all other commands SIGHUP says that their terminal has gone
        hangup.hold()
    from cacheproxy.cli import main

    main(prog_name="cacheproxy")


if __name__ == "__main__":
    run()
