"""`keep` of an upstream, in a daemon of its own and in real time; the clocks are in tests/registry."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio

from cacheproxy.commands.daemon import Daemon
from tests.faults.house import House, hosts

PROGRAM = """
import sys
from pathlib import Path
from cacheproxy import app, config
from cacheproxy.registry import eviction, recency
eviction.KEEP_EVERY = recency.WRITE_EVERY = 0.2
app.run(config.load(Path(sys.argv[1])))
"""
"""It looks more often than once an hour."""

LARGE, SMALL = random.Random(1).randbytes(1 << 20), random.Random(2).randbytes(1 << 16)


async def cached(house: House) -> int:
    daemon = Daemon([house.state / "admin.sock"])
    told: Any = await trio.to_thread.run_sync(daemon.get, "/status")
    return int(told["condition"]["cached"])


@pytest.mark.timeout(120)
async def test_what_nobody_pulls_goes_after_a_while_and_what_is_pinned_stays(folder: Path) -> None:
    async with hosts(folder, upstream='keep = "3s"', name="127.0.0.1") as house, house.process(PROGRAM):
        pinned, idle = house.image("library/pinned", SMALL), house.image("library/idle", LARGE)
        await house.pull(pinned)
        daemon = Daemon([house.state / "admin.sock"])
        await trio.to_thread.run_sync(lambda: daemon.post("/pin", reference="library/pinned"))
        await house.pull(idle)
        with trio.fail_after(60):
            while await cached(house) < len(LARGE):
                await trio.sleep(0.05)
            while await cached(house) >= len(LARGE):
                await trio.sleep(0.05)
        assert await cached(house) >= len(SMALL)
        asked = house.asked("blob")
        await house.pull(pinned)
        assert house.asked("blob") == asked
        await house.pull(idle)
        assert house.asked("blob") == asked + len(idle.blobs)
