"""That no name of the configuration hides what is hosted already."""

from __future__ import annotations

from collections.abc import Iterator

from cacheproxy.config import Config
from cacheproxy.store.database import Database
from cacheproxy.store.names import hosted_below
from cacheproxy.wiring import CannotStart

NAMED = 3
"""Repositories that a refusal names."""


async def nothing_hidden(config: Config, database: Database) -> None:
    """Raises CannotStart where a hosted repository's name would mean something else; StoreError."""
    for what, prefix in _prefixes(config):
        hidden = await hosted_below(database, prefix, NAMED + 1)
        if hidden:
            more = " and others" if len(hidden) > NAMED else ""
            raise CannotStart(
                f"{what} would hide what is hosted: {', '.join(hidden[:NAMED])}{more}. Rename them before"
                " (cacheproxy repository rename), or choose another prefix"
            )


def _prefixes(config: Config) -> Iterator[tuple[str, str]]:
    """What each one is, and how names begin that it takes."""
    for upstream in config.upstreams:
        for prefix in dict.fromkeys((upstream.prefix, upstream.registry)):
            yield f'upstream {upstream.prefix}: "{prefix}"', prefix
    for virtual in config.virtuals:
        yield f'virtual {virtual.prefix}: "{virtual.prefix}"', virtual.prefix
