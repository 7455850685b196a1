"""WWW-Authenticate is read as RFC 9110 writes it, and as strangers do."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.upstream.challenge import Challenge, parse

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
PARAMETERS = st.dictionaries(TOKEN.map(str.lower), VALUE, max_size=3)
SPACE = st.sampled_from(["", " ", "\t", "  "])


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull",
                    },
                )
            ],
        ),
        (  # RFC 9110 section 11.6.1
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [
                Challenge("basic", {"realm": "simple"}),
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ],
        ),
        ("Negotiate", [Challenge("negotiate")]),
        ("Negotiate, Basic realm=a", [Challenge("negotiate"), Challenge("basic", {"realm": "a"})]),
        (
            "Negotiate YQ==, Basic realm=a",
            [Challenge("negotiate", {}, "YQ=="), Challenge("basic", {"realm": "a"})],
        ),
        ('BASIC REALM = "Y"', [Challenge("basic", {"realm": "Y"})]),
        (", ,Basic realm=a, ,", [Challenge("basic", {"realm": "a"})]),
        ('Bearer realm="a",realm="b"', [Challenge("bearer", {"realm": "a"})]),
        ('Bearer scope="a,b c",realm="r"', [Challenge("bearer", {"scope": "a,b c", "realm": "r"})]),
        ("", []),
    ],
)
def test_well_formed_headers_are_read_whole(header: str, challenges: list[Challenge]) -> None:
    assert list(parse(header)) == challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('realm="https://x/"', []),
        (
            'Basic realm="a", Bearer realm="never closed',
            [Challenge("basic", {"realm": "a"}), Challenge("bearer")],
        ),
        ("Bearer realm=https://x/", [Challenge("bearer")]),
        ('Bearer realm="a" service="b"', [Challenge("bearer")]),
        ("\x00", []),
    ],
)
def test_reading_ends_at_what_is_malformed(header: str, challenges: list[Challenge]) -> None:
    assert list(parse(header)) == challenges


@given(st.lists(st.tuples(TOKEN, PARAMETERS), max_size=4), SPACE, SPACE)
def test_what_is_written_is_read_back(
    written: list[tuple[str, dict[str, str]]], before: str, after: str
) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    challenges = [
        scheme
        + " "
        + f"{before},{after}".join(f"{name}{before}={after}{quoted(value)}" for name, value in p.items())
        for scheme, p in written
    ]
    assert parse(f"{before},{after}".join(challenges)) == tuple(
        Challenge(scheme.lower(), parameters) for scheme, parameters in written
    )


@given(st.text(max_size=200))
def test_nothing_makes_it_raise(header: str) -> None:
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in parse(header))


@pytest.mark.parametrize("piece", ['"', "\\", "a=", 'a="', " ", ",", "a ", "a=b ", 'a="\\"'])
def test_hostile_headers_cost_no_more_than_their_length(piece: str) -> None:
    started = time.process_time()
    parse('Bearer realm="' + piece * 8192)
    parse("Bearer " + piece * 8192)
    assert time.process_time() - started < 0.25
