from __future__ import annotations

from pathlib import Path
from typing import Any

from cacheproxy.core.failures import Cause
from cacheproxy.registry.condition import HostCondition, UpstreamCondition, Watch
from cacheproxy.registry.orphans import Sweep
from cacheproxy.store.content import UNLIMITED
from cacheproxy.upstream.pacing import Health
from tests.registry.world import world

HOSTS = [Health("a", False, None, 3.0), Health("b", True, Cause.DNS, None)]


class Watched:
    name, registry, health = "hub", "docker.io", HOSTS


async def test_it_tells_of_space_time_and_upstreams(tmp_path: Path) -> None:
    async with world(tmp_path, budget=1000) as built:
        built.space.store(built.upstream.digest, 300)
        nothing: Any = ()
        watch = Watch([Watched()], nothing, built.space, lambda: (7, 9), lambda: built.now)
        built.pass_time(60)
        told = watch.condition()
    assert (told.uptime, told.cached, told.budget, told.free, told.total) == (60.0, 300, 1000, 7, 9)
    assert told.upstreams == (
        UpstreamCondition(
            "hub",
            "docker.io",
            (HostCondition("a", False, None, 3.0), HostCondition("b", True, "dns", None)),
        ),
    )
    assert told.fills == ()
    assert told.sweep_stopped == ""


async def test_it_tells_why_a_sweep_stopped(tmp_path: Path) -> None:
    async with world(tmp_path) as built:
        nothing, sweep = (), Sweep("too many")
        watch = Watch([], nothing, built.space, lambda: (7, 9), lambda: built.now, sweep=sweep)  # type: ignore[arg-type]
        assert watch.condition().sweep_stopped == "too many"


async def test_a_store_without_an_end_has_no_room_to_tell_of(tmp_path: Path) -> None:
    async with world(tmp_path) as built:
        nothing: Any = ()
        told = Watch([], nothing, built.space, lambda: (UNLIMITED, UNLIMITED), lambda: built.now).condition()
    assert (told.free, told.total) == (None, None)
