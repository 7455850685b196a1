from __future__ import annotations

import ipaddress

import pytest

from cacheproxy.edge.forwarded import Forwarding, parse_address
from cacheproxy.edge.message import Peer

PROXY = ipaddress.ip_address("10.0.0.1")
STRANGER = ipaddress.ip_address("192.0.2.7")
CLIENT = ipaddress.ip_address("198.51.100.9")
FORWARDING = Forwarding([ipaddress.ip_network("10.0.0.0/8")])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("::1", "::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_addresses_as_sockets_and_proxies_write_them(text: str, address: str) -> None:
    assert parse_address(text) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "text", ["", "unknown", "_hidden", "300.1.1.1", "cache.example", "[::1", "1.2.3.4:5:6"]
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None or text == "[::1"


def test_a_request_without_such_fields_is_from_its_neighbour() -> None:
    assert FORWARDING.peer(PROXY, {"host": "a"}) == Peer(PROXY, "http")


def test_a_listed_proxy_names_its_client() -> None:
    headers = {"host": "a", "x-forwarded-for": str(CLIENT), "x-forwarded-proto": "https"}
    assert FORWARDING.peer(PROXY, headers) == Peer(CLIENT, "https")


def test_a_listed_proxy_that_names_no_scheme_leaves_the_connections_own() -> None:
    headers = {"x-forwarded-for": str(CLIENT)}
    assert FORWARDING.peer(PROXY, headers, "https") == Peer(CLIENT, "https")
    headers["x-forwarded-proto"] = "http"
    assert FORWARDING.peer(PROXY, headers, "https") == Peer(CLIENT, "http")


def test_a_stranger_over_tls_came_over_tls_whatever_it_says() -> None:
    headers = {"x-forwarded-proto": "http"}
    assert FORWARDING.peer(STRANGER, headers, "https") == Peer(STRANGER, "https", forwarded_by_stranger=True)


def test_listed_proxies_in_a_row_are_skipped_from_the_right() -> None:
    headers = {"x-forwarded-for": f"127.0.0.1, {CLIENT}, 10.0.0.3, 10.0.0.2"}
    assert FORWARDING.peer(PROXY, headers) == Peer(CLIENT, "http")


def test_a_chain_of_listed_proxies_only_began_at_the_leftmost() -> None:
    headers = {"x-forwarded-for": "10.0.0.3, 10.0.0.2"}
    assert FORWARDING.peer(PROXY, headers) == Peer(ipaddress.ip_address("10.0.0.3"), "http")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"x-forwarded-proto": "https"},
        {"x-forwarded-host": "b"},
        {"forwarded": "for=127.0.0.1"},
    ],
)
def test_a_strangers_word_is_not_believed_and_noted(headers: dict[str, str]) -> None:
    headers = {"host": "a", **headers}
    assert FORWARDING.peer(STRANGER, headers) == Peer(STRANGER, "http", forwarded_by_stranger=True)
    assert headers["host"] == "a"


@pytest.mark.parametrize(
    "headers",
    [{"x-forwarded-for": f"{CLIENT}, unknown"}, {"forwarded": "for=198.51.100.9"}, {"x-forwarded-for": ""}],
)
def test_a_listed_proxy_that_does_not_say_who_counts_like_a_stranger(headers: dict[str, str]) -> None:
    assert FORWARDING.peer(PROXY, headers) == Peer(PROXY, "http", forwarded_by_stranger=True)


def test_what_is_left_of_the_client_is_not_read() -> None:
    assert FORWARDING.peer(PROXY, {"x-forwarded-for": f"garbage, {CLIENT}"}) == Peer(CLIENT, "http")


def test_a_listed_proxys_forwarded_host_replaces_host() -> None:
    headers = {
        "host": "backend",
        "x-forwarded-host": "cache.example:5000, other",
        "x-forwarded-for": str(CLIENT),
    }
    FORWARDING.peer(PROXY, headers)
    assert headers["host"] == "cache.example:5000"


def test_a_forwarded_host_that_is_none_is_ignored() -> None:
    headers = {"host": "backend", "x-forwarded-host": "a/../b", "x-forwarded-for": str(CLIENT)}
    FORWARDING.peer(PROXY, headers)
    assert headers["host"] == "backend"


def test_a_scheme_that_is_neither_is_http() -> None:
    headers = {"x-forwarded-for": str(CLIENT), "x-forwarded-proto": "gopher"}
    assert FORWARDING.peer(PROXY, headers).scheme == "http"


def test_a_unix_sockets_peer_is_listed_when_loopback_is() -> None:
    headers = {"x-forwarded-for": str(CLIENT)}
    assert FORWARDING.peer(None, headers) == Peer(None, "http", forwarded_by_stranger=True)
    assert Forwarding([ipaddress.ip_network("::1/128")]).peer(None, headers) == Peer(CLIENT, "http")


def test_networks_of_the_other_family_do_not_match() -> None:
    assert not FORWARDING.lists(ipaddress.ip_address("::1"))
