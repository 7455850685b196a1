"""The stores under contract: another one joins by a line in CONTENTS or DATABASES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cacheproxy.store.database import Database
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite


def _sqlite(folder: Path) -> AbstractAsyncContextManager[Database]:
    return SQLite.open(folder / "rows.db")


CONTENTS: dict[str, Callable[[Path], DiskContent]] = {"disk": lambda folder: DiskContent(folder / "content")}
DATABASES: dict[str, Callable[[Path], AbstractAsyncContextManager[Database]]] = {"sqlite": _sqlite}


@pytest.fixture(params=sorted(CONTENTS))
def content(request: pytest.FixtureRequest, tmp_path: Path) -> DiskContent:
    return CONTENTS[request.param](tmp_path)


@pytest.fixture(params=sorted(DATABASES))
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with DATABASES[request.param](tmp_path) as database:
        yield database


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database)


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
