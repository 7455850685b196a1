"""Redirects are followed where they may lead, and tell no secret on the way."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.redirects import HOPS, for_strangers, next_hop, place

HERE = httpx.URL("https://registry.example/v2/a/blobs/sha256:0")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example/x", "https://cdn.example/x"),
        ("/elsewhere?a=b", "https://registry.example/elsewhere?a=b"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("https://cdn.example/x#part", "https://cdn.example/x"),
        ("https://cdn.example:8443/x", "https://cdn.example:8443/x"),
    ],
)
def test_location_is_resolved_where_it_was_given(location: str, target: str) -> None:
    assert str(next_hop(HERE, location, [HERE], "hub")) == target


def test_signature_stays_as_it_was_signed() -> None:
    location = (
        "https://s3.example/b%2Fk/a+b?X-Amz-Signature=a%2Bb+c~d%3D&X-Amz-Credential=K%2F20261124%2Fs3&x=="
    )
    assert (
        next_hop(HERE, location, [HERE], "hub").raw_path
        == location.removeprefix("https://s3.example").encode()
    )


@pytest.mark.parametrize(
    ("location", "cause"),
    [
        ("http://registry.example/x", Cause.GATE),
        ("http://cdn.example/x", Cause.GATE),
        ("ftp://cdn.example/x", Cause.GATE),
        ("file:///etc/passwd", Cause.GATE),
        ("javascript:alert(1)", Cause.GATE),
        ("https://user:password@cdn.example/x", Cause.GATE),
        ("https://cdn.example\\@evil.example/x", Cause.GATE),
        ("https://cdn.example:99999/x", Cause.GATE),
        (None, Cause.PROTOCOL),
        ("https://[zz]/", Cause.PROTOCOL),
        ("https://cdn.example/\x01", Cause.PROTOCOL),
        ("https://cdn.example/" + "a" * 9000, Cause.PROTOCOL),
        (str(HERE), Cause.PROTOCOL),
    ],
)
def test_what_leads_nowhere_or_where_we_do_not_go_is_refused(location: str | None, cause: Cause) -> None:
    with pytest.raises(UpstreamError) as caught:
        next_hop(HERE, location, [HERE], "hub")
    assert caught.value.cause is cause


def test_plain_http_may_lead_to_https() -> None:
    here = httpx.URL("http://registry.example/x")
    assert next_hop(here, "https://cdn.example/x", [here], "hub").scheme == "https"


def test_chain_ends_after_its_hops() -> None:
    visited = [HERE]
    for n in range(HOPS):
        visited.append(next_hop(visited[-1], f"/{n}", visited, "hub"))
    with pytest.raises(UpstreamError, match=f"more than {HOPS} times"):
        next_hop(visited[-1], "/on", visited, "hub")


def test_circle_is_noticed_at_once() -> None:
    there = next_hop(HERE, "/b", [HERE], "hub")
    with pytest.raises(UpstreamError, match="circle"):
        next_hop(there, str(HERE), [HERE, there], "hub")


@given(st.text(max_size=80))
def test_any_location_is_a_url_or_an_error_of_the_upstream(location: str) -> None:
    try:
        target = next_hop(HERE, location, [HERE], "hub")
    except UpstreamError:
        return
    assert target.scheme == "https"
    assert target.host
    assert not target.userinfo


def test_strangers_hear_nothing_of_who_asks() -> None:
    told = for_strangers(
        [
            ("User-Agent", "u"),
            ("Accept-Encoding", "identity"),
            ("Range", "bytes=0-"),
            ("Authorization", "Bearer t"),
            ("Cookie", "c"),
            ("Proxy-Authorization", "p"),
            ("X-Registry-Auth", "x"),
            ("Via", "1.1 us"),
        ]
    )
    assert told == [("User-Agent", "u"), ("Accept-Encoding", "identity"), ("Range", "bytes=0-")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://A.example:443/y", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://a.example", "https://b.example", False),
    ],
)
def test_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (place(httpx.URL(one)) == place(httpx.URL(other))) is same
