"""Pushers, pullers, those who delete and the collector at once, and kills (reliability: H2, I1-I12)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.soak import soak
from tests.e2e.stores import shared
from tests.seaweed import Seaweed

WHAT_COUNTS = {"images pushed", "images pulled", "images deleted"}


@pytest.fixture(params=["SQLite and a disk", "PostgreSQL and a bucket"])
def storage(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "SQLite and a disk":
        yield ""
        return
    bucket: Seaweed = request.getfixturevalue("seaweed_server")
    with shared(bucket, folder) as stores:
        yield stores.storage()


@pytest.mark.timeout(900)
async def test_what_was_pushed_survives_kills_and_the_collector(folder: Path, storage: str) -> None:
    counts = await soak(folder, storage)
    assert counts.keys() >= WHAT_COUNTS, "a run without them proves nothing"
