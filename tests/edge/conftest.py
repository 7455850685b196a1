"""Fixtures of the edge's tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio.testing

from tests.edge.harness import Running, Scripted, serving


@pytest.fixture
def app() -> Scripted:
    return Scripted()


@pytest.fixture
async def server(app: Scripted) -> AsyncIterator[Running]:
    async with serving(app) as running:
        yield running


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Virtual time beside real loopback sockets: it jumps once the kernel has had a moment to deliver."""
    return trio.testing.MockClock(autojump_threshold=0.004)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)
