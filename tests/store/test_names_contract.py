"""Which hosted repositories a prefix would hide, on both databases."""

from __future__ import annotations

from cacheproxy.core.settings import Settings
from cacheproxy.store.database import Database
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.names import hosted_below
from cacheproxy.store.records import Records
from tests.store.images import REPOSITORY, image, record


async def test_hosted_names_are_found_by_whole_segments(database: Database, records: Records) -> None:
    for name in ("team", "team/app", "team/app/sub", "team-b/app", "teams/app", "tea/m", "team/z"):
        assert await Hosted(database).create(name, Settings(), 1.0)
    assert await hosted_below(database, "team", 10) == ["team", "team/app", "team/app/sub", "team/z"]
    assert await hosted_below(database, "team", 2) == ["team", "team/app"]
    assert await hosted_below(database, "team/app", 10) == ["team/app", "team/app/sub"]
    assert await hosted_below(database, "tea", 10) == ["tea/m"]
    assert await hosted_below(database, "t", 10) == []


async def test_what_is_cached_is_not_hidden(database: Database, records: Records) -> None:
    await record(records, image())
    assert await hosted_below(database, REPOSITORY.partition("/")[0], 10) == []
