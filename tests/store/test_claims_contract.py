"""Which blobs upstreams that decide for themselves are known to have, on both databases."""

from __future__ import annotations

from cacheproxy.store.claims import Claims
from cacheproxy.store.database import Database
from cacheproxy.store.records import Records
from tests.store.images import CHILD, CONFIG_DIGEST, LAYER_DIGEST


async def test_a_blob_is_known_by_the_upstreams_whose_repositories_have_it(
    database: Database, records: Records
) -> None:
    await records.record_link("corp/team/app", "corp", LAYER_DIGEST, 5, 1.0)
    await records.record_link("hub/debian", "hub", CONFIG_DIGEST, 5, 1.0)
    for upstreams, digest, known in (
        (["corp"], LAYER_DIGEST, True),
        (["other", "corp"], LAYER_DIGEST, True),
        (["corp"], CONFIG_DIGEST, False),
        (["hub"], LAYER_DIGEST, False),
        (["corp"], CHILD, False),
        ([], LAYER_DIGEST, False),
    ):
        assert await Claims(database, upstreams).include(digest) is known
