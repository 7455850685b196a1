"""The stores under contract: another one joins by a line in CONTENTS or DATABASES."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from cacheproxy.store.content import Content
from cacheproxy.store.database import Database
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.objects import open_objects
from cacheproxy.store.postgres import Postgres
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite
from tests.postgres import postgres_url as postgres_url

Opened = AbstractAsyncContextManager[Database]


def _sqlite(request: pytest.FixtureRequest) -> Opened:
    return SQLite.open(request.getfixturevalue("tmp_path") / "rows.db")


def _postgres(request: pytest.FixtureRequest) -> Opened:
    return Postgres.open(request.getfixturevalue("postgres_url"))


@asynccontextmanager
async def _disk(request: pytest.FixtureRequest) -> AsyncIterator[Content]:
    yield DiskContent(request.getfixturevalue("tmp_path") / "content")


def _objects(request: pytest.FixtureRequest, server: str) -> AbstractAsyncContextManager[Content]:
    bucket = request.getfixturevalue(server).connect()
    return open_objects(bucket, request.getfixturevalue("tmp_path") / "content")


CONTENTS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Content]]] = {
    "azurite": partial(_objects, server="azurite_server"),
    "disk": _disk,
    "google": partial(_objects, server="google_server"),
    "seaweedfs": partial(_objects, server="seaweed_server"),
}
DATABASES: dict[str, Callable[[pytest.FixtureRequest], Opened]] = {"sqlite": _sqlite, "postgres": _postgres}


MARKS = {"azurite": pytest.mark.azurite}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in sorted(CONTENTS)])
def opened_content(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Content]:
    return CONTENTS[request.param](request)


@pytest.fixture
async def content(opened_content: AbstractAsyncContextManager[Content]) -> AsyncIterator[Content]:
    async with opened_content as content:
        yield content


@pytest.fixture(params=sorted(DATABASES))
def opened(request: pytest.FixtureRequest) -> Opened:
    return DATABASES[request.param](request)


@pytest.fixture
async def database(opened: Opened) -> AsyncIterator[Database]:
    async with opened as database:
        yield database


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database)


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
