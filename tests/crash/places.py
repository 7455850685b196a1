"""Where a run's daemons keep rows and bytes: on this node alone, or in PostgreSQL and a bucket."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg

from cacheproxy.store.bucket import Bucket
from tests.crash.remains import Found, look, look_at
from tests.faults.remains import rows_of
from tests.postgres import server as postgres
from tests.seaweed import Seaweed

_STORED = "SELECT digest FROM blob WHERE generation > 0"
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
END_WITHIN = 20.0
"""Seconds until PostgreSQL has done what a dead client had sent, and noticed its death."""


class Place(Protocol):
    @property
    def state(self) -> Path:
        """Of each daemon in turn."""
        ...

    @property
    def storage(self) -> str:
        """Lines of its [storage]."""
        ...

    def stored(self) -> set[str]:
        """Digests, while a daemon runs."""
        ...

    def look(self, blobs: Mapping[str, bytes], *, running: bool = False) -> Found:
        """At all of it, whether a daemon runs or none. `blobs` are the right bytes, by digest."""
        ...

    def age(self) -> float | None:
        """Make all that is stored old enough to be swept; or say from what age on a daemon has to sweep."""
        ...


@dataclass(frozen=True)
class Local:
    state: Path
    storage: str = ""

    def stored(self) -> set[str]:
        with rows_of(self.state) as database:
            return {digest for (digest,) in database.execute(_STORED)}

    def look(self, blobs: Mapping[str, bytes], *, running: bool = False) -> Found:
        return look(self.state, blobs)

    def age(self) -> float | None:
        for file in (self.state / "blobs" / "blobs").rglob("*.*"):
            os.utime(file, (time.time() - 86400,) * 2)
        return None


@dataclass(frozen=True)
class Shared:
    state: Path
    storage: str
    database: str
    bucket: Bucket

    def stored(self) -> set[str]:
        with psycopg.connect(self.database) as connection:
            return {digest for (digest,) in connection.execute(_STORED).fetchall()}

    def look(self, blobs: Mapping[str, bytes], *, running: bool = False) -> Found:
        with psycopg.connect(self.database, autocommit=True) as connection:
            if not running:
                _wait_for_the_last_commit(connection)
            made = connection.execute("SELECT to_regclass('quarantine')").fetchall() != [(None,)]
            return look_at(
                (lambda sql: connection.execute(sql).fetchall()) if made else None,
                {key: self._bytes(key, size) for key, size, _ in self.bucket.list("blobs")},
                self.state / "blobs" / "partial",
                blobs,
            )

    def _bytes(self, key: str, size: int) -> bytes:
        piece = self.bucket.get(key, 0, size) if size else None
        return b"" if piece is None else bytes(piece.data)

    def age(self) -> float | None:
        return -60.0  # an object's time is its store's, in whole seconds


def _wait_for_the_last_commit(connection: psycopg.Connection) -> None:
    deadline = time.monotonic() + END_WITHIN
    while connection.execute(_OTHERS).fetchall() != [(0,)]:
        assert time.monotonic() < deadline, "somebody else uses the database"
        time.sleep(0.02)


@contextmanager
def shared(state: Path, seaweed: Seaweed) -> Iterator[Shared]:
    """Both are empty."""
    prefix = secrets.token_hex(6)
    with postgres().database() as database:
        lines = f'database = "{database}"\n' + seaweed.storage(prefix, state.parent / "keys.ini")
        yield Shared(state, lines, database, seaweed.connect(prefix))
