from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from cacheproxy import wiring
from cacheproxy.api.operations import OperatorDoor
from cacheproxy.config import Storage, Traces, load
from cacheproxy.registry.scrub import ScrubRules
from cacheproxy.reload import Current
from cacheproxy.request_log import unlogged
from cacheproxy.store.sqlite import SQLite
from tests.postgres import postgres_url as postgres_url


def storage(folder: Path, text: str = "") -> Storage:
    (folder / "c.toml").write_text(f'[storage]\nstate = "."\n{text}')
    return load(folder / "c.toml", {}).storage


async def test_path_is_a_sqlite_file(tmp_path: Path) -> None:
    async with wiring.open_database(storage(tmp_path)) as database:
        assert isinstance(database, SQLite)
    assert (tmp_path / "cacheproxy.db").is_file()


async def test_url_is_a_postgresql(tmp_path: Path, postgres_url: str) -> None:
    async with wiring.open_database(storage(tmp_path, f"database = '{postgres_url}'")) as database:
        row = await database.read(lambda tx: tx.one("SELECT version()"))
    assert row is not None
    assert row[0].startswith("PostgreSQL")
    assert not (tmp_path / "cacheproxy.db").exists()


def test_plain_installation_says_what_a_postgresql_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "cacheproxy.store.postgres", raising=False)
    monkeypatch.delitem(sys.modules, "cacheproxy.store.postgres_connection", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(wiring.CannotStart, match=r"install cacheproxy\[postgres\]"):
        wiring.open_database(storage(tmp_path, "database = 'postgresql://us@db/rows'"))


def traces(folder: Path, text: str) -> Traces:
    (folder / "c.toml").write_text(f"[traces]\n{text}")
    return load(folder / "c.toml", {}).traces


async def test_where_nothing_is_traced_everything_stays_as_it_is(tmp_path: Path) -> None:
    application, log = Current(OperatorDoor({})), unlogged
    async with wiring.open_traces(traces(tmp_path, "")) as watch:
        assert watch(application, log) == (application, log)


async def test_plain_installation_says_what_traces_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "cacheproxy.tracing.collector", raising=False)
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(wiring.CannotStart, match=r"install cacheproxy\[otel\]"):
        async with wiring.open_traces(traces(tmp_path, 'endpoint = "http://127.0.0.1:4318"')):
            pass


def test_nothing_of_opentelemetry_is_imported_without_a_collector(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[server]\nlisten = ["127.0.0.1:0"]\nmetrics = "127.0.0.1:0"\n[storage]\nstate = "."\n'
    )
    program = """
import sys, trio
from pathlib import Path
from cacheproxy import app, cli, config
async def run():
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(app.main, config.load(Path(sys.argv[1])), drain)
        drain.set()
trio.run(run)
print([name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "requests", "google")])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "c.toml"], stdout=subprocess.PIPE, check=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("", 30 * 86400),
        ('[cache]\nscrub = { every = "7d" }', 7 * 86400),
        ('[cache]\nscrub = "never"', math.inf),
        ('[storage]\nblobs = "s3://bucket/x"', math.inf),
        ('[storage]\nblobs = "s3://bucket/x"\n[cache]\nscrub = { buckets = true }', 30 * 86400),
    ],
)
def test_what_is_scrubbed_unasked(tmp_path: Path, text: str, every: float) -> None:
    (tmp_path / "c.toml").write_text(text)
    config = load(tmp_path / "c.toml", {})
    assert wiring.scrub_rules(config.cache, config.storage) == ScrubRules(every, 16 << 20)
