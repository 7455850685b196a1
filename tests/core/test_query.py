"""Queries: strict, once, small."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.errors import OCIError
from cacheproxy.core.query import MAX_PAGE, MAX_PARAMETERS, MAX_QUERY, first, parse_n, parse_query

printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@given(st.lists(st.tuples(printable, printable), max_size=8))
def test_what_is_encoded_comes_back_in_order(pairs: list[tuple[str, str]]) -> None:
    raw = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    expected: dict[str, list[str]] = {}
    for name, value in pairs:
        expected.setdefault(name, []).append(value)
    assert parse_query(raw) == expected


@pytest.mark.parametrize(
    ("raw", "parameters"),
    [
        ("", {}),
        ("&&", {}),
        ("ns=docker.io", {"ns": ["docker.io"]}),
        ("ns=localhost:5000", {"ns": ["localhost:5000"]}),
        ("ns=localhost%3A5000&n=5", {"ns": ["localhost:5000"], "n": ["5"]}),
        ("artifactType=application/x+json", {"artifactType": ["application/x+json"]}),
        ("artifactType=application%2Fx%2Bjson", {"artifactType": ["application/x+json"]}),
        ("a=1&a=2", {"a": ["1", "2"]}),
        ("a", {"a": [""]}),
        ("a=b=c", {"a": ["b=c"]}),
        ("n=5;", {"n": ["5;"]}),
        ("a=%2525", {"a": ["%25"]}),
    ],
)
def test_a_query_is_read(raw: str, parameters: dict[str, list[str]]) -> None:
    assert parse_query(raw) == parameters


@pytest.mark.parametrize(
    "raw",
    ["a=%", "a=%zz", "%=1", "a=\u0661", "a= b", "a=b\n", "a=%00", "a=%0d%0a", "a=%ff", "x" * (MAX_QUERY + 1)],
)
def test_a_bad_query_is_400(raw: str) -> None:
    with pytest.raises(OCIError) as caught:
        parse_query(raw)
    assert caught.value.status == 400


def test_a_query_of_the_largest_size_is_read() -> None:
    assert parse_query("x" * MAX_QUERY)


def test_of_a_repeated_parameter_the_first_counts() -> None:
    parameters = parse_query("a=1&a=2&b=")
    assert [first(parameters, name) for name in ("a", "b", "c")] == ["1", "", None]


def test_parameters_have_a_limit() -> None:
    assert len(parse_query("&".join(f"p{i}=" for i in range(MAX_PARAMETERS)))) == MAX_PARAMETERS
    with pytest.raises(OCIError):
        parse_query("&".join(f"p{i}=" for i in range(MAX_PARAMETERS + 1)))


@pytest.mark.parametrize(
    ("values", "n"),
    [
        ([], None),
        (["0"], 0),
        (["1"], 1),
        (["999"], 999),
        (["1000"], MAX_PAGE),
        (["1001"], MAX_PAGE),
        (["1000000000"], MAX_PAGE),
        (["9223372036854775808"], MAX_PAGE),
        (["9" * 4000], MAX_PAGE),
        (["000000000005"], 5),
    ],
)
def test_a_page_size_is_read_and_cut(values: list[str], n: int | None) -> None:
    assert parse_n(values) == n


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["-1"],
        ["+1"],
        [" 5"],
        ["5 "],
        ["5;"],
        ["1_0"],
        ["1e3"],
        ["0x10"],
        ["5.0"],
        ["\u0661\u0662"],
        ["\u00b2"],
        ["many"],
        ["5\n"],
        ["5", "5"],
    ],
)
def test_what_is_no_page_size_is_refused(values: list[str]) -> None:
    with pytest.raises(OCIError) as caught:
        parse_n(values)
    assert (caught.value.status, caught.value.code) == (400, "PAGINATION_NUMBER_INVALID")
