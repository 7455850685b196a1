from __future__ import annotations

import apsw
import pytest

from cacheproxy.store import queries
from cacheproxy.store.connection import SQLiteTx
from cacheproxy.store.migrations import migrate
from cacheproxy.store.sqlite import DIALECT

TEXTS = {name: text for name, text in vars(queries).items() if name.isupper() and isinstance(text, str)}
POINT_READS = ("REPOSITORY", "TAG", "IMAGE", "BLOB", "ANY_BLOB", "REPOSITORY_ID")


@pytest.mark.parametrize("name", TEXTS)
def test_text_keeps_to_both_dialects(name: str) -> None:
    text = TEXTS[name]
    assert "%" not in text
    assert "::" not in text
    assert "OR REPLACE" not in text
    assert "OR IGNORE" not in text


def plan(sql: str) -> list[str]:
    connection = apsw.Connection(":memory:")
    migrate(SQLiteTx(connection), DIALECT)

    class Anything(dict[str, object]):
        def __missing__(self, key: str) -> int:
            return 1

    steps = [str(detail) for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {sql}", Anything())]
    connection.close()
    return steps


@pytest.mark.parametrize("name", POINT_READS)
def test_point_read_goes_by_keys_alone(name: str) -> None:
    steps = plan(TEXTS[name])
    assert steps
    for step in steps:
        assert step.startswith("SEARCH"), steps


def test_referrers_go_by_their_index_and_need_no_sorting() -> None:
    steps = plan(queries.REFERRERS)
    assert any("image_by_subject (repository=? AND subject=?)" in step for step in steps), steps
    assert not any("ORDER BY" in step for step in steps), steps


def test_the_order_of_eviction_goes_by_its_index() -> None:
    steps = plan(queries.EVICTABLE)
    assert any("blob USING INDEX blob_by_use" in step for step in steps), steps
    assert any("link USING COVERING INDEX link_by_digest (digest=?)" in step for step in steps), steps
    for scan in (step for step in steps if step.startswith("SCAN")):
        assert scan.removeprefix("SCAN ").split()[0] in ("pin", "held", "page", "CONSTANT"), steps


def test_due_trash_goes_by_its_index_and_needs_no_sorting() -> None:
    (step,) = plan(queries.DUE_TRASH)
    assert "trash_by_time (not_before<?)" in step
