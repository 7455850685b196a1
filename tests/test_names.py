"""A whole daemon whose configuration would take the names of what is hosted: refused, and told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy import config
from cacheproxy.core.settings import Settings
from cacheproxy.groups import leaves
from cacheproxy.names import nothing_hidden
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.sqlite import SQLite
from cacheproxy.wiring import CannotStart
from tests.faults.house import hosts

UPSTREAM = '[[upstream]]\nregistry = "{registry}"\nprefix = "{prefix}"\nurl = "http://127.0.0.1:9"\n'


@pytest.mark.parametrize(
    ("text", "hides"),
    [
        (UPSTREAM.format(registry="a.test", prefix="team"), "team/app, team/lib"),
        (UPSTREAM.format(registry="team", prefix="mirror"), "team/app, team/lib"),
        (UPSTREAM.format(registry="a.test", prefix="team/app"), "team/app"),
        ('[[virtual]]\nprefix = "team"\nmembers = ["platform"]\n', "team/app, team/lib"),
        (UPSTREAM.format(registry="a.test", prefix="teams"), None),
    ],
)
async def test_a_name_that_hides_hosted_repositories_is_refused(
    tmp_path: Path, text: str, hides: str | None
) -> None:
    file = tmp_path / "cacheproxy.toml"
    file.write_text(text)
    async with SQLite.open(tmp_path / "rows.db") as database:
        for name in ("team/app", "team/lib", "platform/x"):
            await Hosted(database).create(name, Settings(), 1.0)
        if hides is None:
            await nothing_hidden(config.load(file), database)
            return
        with pytest.raises(CannotStart) as caught:
            await nothing_hidden(config.load(file), database)
    assert f"would hide what is hosted: {hides}." in str(caught.value)
    assert "cacheproxy repository rename" in str(caught.value)


async def test_of_many_some_are_named(tmp_path: Path) -> None:
    file = tmp_path / "cacheproxy.toml"
    file.write_text(UPSTREAM.format(registry="a.test", prefix="team"))
    async with SQLite.open(tmp_path / "rows.db") as database:
        for name in "abcd":
            await Hosted(database).create(f"team/{name}", Settings(), 1.0)
        with pytest.raises(CannotStart, match="team/a, team/b, team/c and others"):
            await nothing_hidden(config.load(file), database)


async def test_a_daemon_does_not_start_so(tmp_path: Path) -> None:
    async with hosts(tmp_path) as house:
        async with house.daemon():
            house.drain()
        async with SQLite.open(house.state / "cacheproxy.db") as database:
            await Hosted(database).create("team/app", Settings(), 1.0)
        house.file.write_text(house.file.read_text() + UPSTREAM.format(registry="a.test", prefix="team"))
        with pytest.raises(ExceptionGroup) as caught:
            async with house.daemon():
                raise AssertionError
        (refused,) = leaves(caught.value)
        assert isinstance(refused, CannotStart)
        assert "team/app" in str(refused)
