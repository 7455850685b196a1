from __future__ import annotations

from cacheproxy.cli import main

main(prog_name="cacheproxy")
