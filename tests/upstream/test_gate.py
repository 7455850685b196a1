"""The address policy, as a table of spellings."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.upstream.gate import Address, AddressGate
from tests.upstream.addresses import CLOSED, OPEN


def spelled(text: str) -> Address:
    """The address that the C library makes of a host without asking DNS."""
    found = socket.getaddrinfo(text, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return ip_address(str(found[0][4][0]).partition("%")[0])


@pytest.mark.parametrize("host", CLOSED)
def test_what_is_not_public_is_refused(host: str) -> None:
    assert not AddressGate().judge(spelled(host))


@pytest.mark.parametrize("host", OPEN)
def test_what_is_public_passes(host: str) -> None:
    assert AddressGate().judge(spelled(host))


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("127.1", "127.0.0.0/8"),
        ("::1", "::1/128"),
        ("fd00::1", "fd00::/8"),
        ("fe80::1%lo", "fe80::/10"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("168.63.129.16", "168.63.129.16/32"),
        ("64:ff9b::8.8.8.8", "64:ff9b::/96"),
        ("64:ff9b:1::1", "64:ff9b:1::/48"),
        ("2002:808:808::1", "2002::/16"),
    ],
)
def test_what_is_listed_passes(host: str, listed: str) -> None:
    assert AddressGate([ip_network(listed)]).judge(spelled(host))


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("10.1.2.3", "10.1.3.0/24"),
        ("::1", "127.0.0.0/8"),
        ("127.0.0.1", "::1/128"),
        ("::ffff:7f00:1", "::/96"),
    ],
)
def test_a_listing_covers_only_itself(host: str, listed: str) -> None:
    assert not AddressGate([ip_network(listed)]).judge(spelled(host))


@pytest.mark.parametrize("host", ["64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::168.63.129.16"])
def test_a_listed_translator_does_not_open_what_is_behind_it(host: str) -> None:
    assert not AddressGate([ip_network("64:ff9b::/96")]).judge(spelled(host))


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_its_ipv4_address(address: IPv4Address) -> None:
    gate = AddressGate([ip_network("10.0.0.0/8")])
    assert gate.judge(IPv6Address(f"::ffff:{address}")) == gate.judge(address)


@given(st.ip_addresses())
def test_nothing_passes_that_the_standard_library_knows_to_be_closed(address: Address) -> None:
    plain = (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
    closed = plain.is_private or plain.is_loopback or plain.is_link_local or plain.is_multicast
    if closed or plain.is_reserved or plain.is_unspecified:
        assert not AddressGate().judge(address)
