"""Paging, and the Link that leads on."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.listing import link, next_link, page
from cacheproxy.core.query import parse_n, parse_query
from tests.core.names import tags

lists = st.sets(tags, max_size=30).map(sorted)


def walk(items: list[str], n: int) -> list[str]:
    """Follow the Links as a client does: each page's own query comes from the Link before."""
    seen: list[str] = []
    query: dict[str, list[str]] = {"n": [str(n)]}
    while True:
        got, more = page(items, parse_n(query["n"]), query.get("last", [None])[0])
        seen += got
        if not more:
            return seen
        target = next_link(link("/v2/a/tags/list", n, got[-1], {"ns": "docker.io"}))
        assert target is not None
        query = parse_query(urlsplit(target).query)
        assert query["ns"] == ["docker.io"]


@given(lists, st.integers(1, 12))
def test_a_walk_sees_each_item_once_in_order(items: list[str], n: int) -> None:
    assert walk(items, n) == items


@given(lists, st.integers(1, 5), st.sets(tags, max_size=10), st.sets(tags, max_size=10))
def test_what_stays_is_seen_once_while_others_come_and_go(
    items: list[str], n: int, come: set[str], go: set[str]
) -> None:
    seen: list[str] = []
    last, now = None, items
    while True:
        got, more = page(now, n, last)
        seen += got
        if not more:
            break
        last = got[-1]
        now = sorted((set(items) | come) - go) if now is items else items
    assert len(seen) == len(set(seen))
    assert set(items) - go <= set(seen)


@pytest.mark.parametrize(
    ("n", "last", "got", "more"),
    [
        (None, None, ["a", "b", "c"], False),
        (None, "a", ["b", "c"], False),
        (2, None, ["a", "b"], True),
        (3, None, ["a", "b", "c"], False),
        (4, None, ["a", "b", "c"], False),
        (1, "a", ["b"], True),
        (1, "b", ["c"], False),
        (2, "aa", ["b", "c"], False),
        (2, "c", [], False),
        (2, "z", [], False),
        (2, "", ["a", "b"], True),
        (0, None, [], False),
        (0, "a", [], False),
    ],
)
def test_a_page(n: int | None, last: str | None, got: list[str], more: bool) -> None:
    assert page(["a", "b", "c"], n, last) == (got, more)


@given(st.integers(0, 1000), st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20))
def test_a_links_query_reads_as_it_was_written(n: int, last: str) -> None:
    target = next_link(link("/v2/a/b/tags/list", n, last))
    assert target is not None
    assert target.isascii()
    split = urlsplit(target)
    assert split.path == "/v2/a/b/tags/list"
    assert parse_query(split.query) == {"n": [str(n)], "last": [last]}


def test_a_link_is_the_specified_header() -> None:
    assert link("/v2/a/tags/list", 20, "b") == '</v2/a/tags/list?n=20&last=b>; rel="next"'


@pytest.mark.parametrize(
    ("header", "target"),
    [
        (
            '<http://example.com/v2/a/tags/list?n=20&last=b>; rel="next"',
            "http://example.com/v2/a/tags/list?n=20&last=b",
        ),
        ("</x>; rel=next", "/x"),
        ("</x>;rel=next", "/x"),
        ('</x> ; REL = "NEXT"', "/x"),
        ('</x>; rel="prev next"', "/x"),
        ('</x>; title="a, b; c"; rel="next"', "/x"),
        ('</y>; rel="prev", </x>; rel="next"', "/x"),
        ('</y>; title="; rel=next", </x>; rel="next"', "/x"),
        ('</x,y;z>; rel="next"', "/x,y;z"),
        ('</x>; rel="next"; rel="prev"', "/x"),
        ('</x>; rel="prev"; rel="next"', None),  # RFC 8288, 3.3: the first one counts
        ('</x>; rel="prev"', None),
        ('</x>; rel="nextish"', None),
        ("</x>", None),
        ("", None),
        ("next", None),
        ('</x; rel="next"', None),
        ('rel="next"', None),
    ],
)
def test_the_next_link_of_a_header(header: str, target: str | None) -> None:
    assert next_link(header) == target


@given(st.text('<>;,="/relnxt \\', max_size=60))
def test_any_header_has_a_next_link_or_none(header: str) -> None:
    target = next_link(header)
    assert target is None or f"<{target}>" in header


@pytest.mark.parametrize(
    "header", ["<" * 8192, "<x>" + ";a" * 4000, '<x>;a="' * 1000, "<x>;a=" * 1500, " ;" * 4000]
)
def test_a_hostile_header_costs_little(header: str) -> None:
    started = time.process_time()
    assert next_link(header) is None
    assert time.process_time() - started < 0.1
