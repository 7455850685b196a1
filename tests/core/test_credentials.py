from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.credentials import Login, parse_basic, parse_bearer


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@given(st.text().filter(lambda name: ":" not in name), st.text())
def test_a_name_and_a_password_come_back(name: str, password: str) -> None:
    assert parse_basic(basic(f"{name}:{password}")) == Login(name, password)


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !", basic("no colon"), "Basic /w==", "Bearer YTpi", "Basic YTpi x", "Basic YTp"],
)
def test_what_is_not_well_formed_says_nothing(header: str) -> None:
    assert parse_basic(header) is None


def test_the_scheme_is_read_in_any_case() -> None:
    assert parse_basic("bAsIc YTpi") == Login("a", "b")
    assert parse_bearer("BEARER abc.def") == "abc.def"


def test_a_token_is_read() -> None:
    assert parse_bearer("Bearer abc.d-e_f") == "abc.d-e_f"
    assert parse_bearer("Basic YTpi") is None
    assert parse_bearer("Bearer a b") is None


def test_endless_credentials_are_not_looked_at() -> None:
    assert parse_basic(basic("a:" + "b" * 8000)) is None
    assert parse_bearer("Bearer " + "a" * 8192) is None
