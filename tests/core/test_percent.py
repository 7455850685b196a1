"""Percent-encoding: once, and strictly."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.percent import decode

printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


@given(printable)
def test_what_is_quoted_comes_back(text: str) -> None:
    assert decode(quote(text, safe="")) == text


@given(st.text("%25abc", max_size=8))
def test_nothing_is_decoded_twice(text: str) -> None:
    assert decode(quote(text, safe="")) == text


def test_plus_is_a_plus() -> None:
    assert decode("a+b%2Bc") == "a+b+c"


@pytest.mark.parametrize(
    "text",
    [
        "%",
        "%a",
        "a%2",
        "%zz",
        "%%",
        "%2 ",
        " ",
        "a b",
        "a\n",
        "\x7f",
        "é",
        "%ff",
        "%c3",
        "%ed%a0%80",
        "%c0%af",
    ],
)
def test_what_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)


@pytest.mark.parametrize("text", ["%00", "%0a", "%0D", "%7f", "%1b", "%c2%85"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="control"):
        decode(text)
