"""Virtual time for what also waits for threads."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.store.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Jumps over waits, but not while a thread works, however slow the machine is."""
    clock, busy = MockClock(autojump_threshold=0), 0

    def waited_for(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def wait(*args: P.args, **kwargs: P.kwargs) -> T:
            nonlocal busy
            busy += 1
            clock.autojump_threshold = math.inf
            try:
                return await call(*args, **kwargs)
            finally:
                busy -= 1
                if not busy:
                    clock.autojump_threshold = 0

        return wait

    monkeypatch.setattr(trio.to_thread, "run_sync", waited_for(trio.to_thread.run_sync))
    monkeypatch.setattr(Writer, "run", waited_for(Writer.run))
    return clock
