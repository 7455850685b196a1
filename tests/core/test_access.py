"""Who may read what, by network."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.access import Access, Grant
from cacheproxy.core.patterns import Patterns


def grant(networks: list[str], repositories: str | tuple[str, ...]) -> Grant:
    return Grant(tuple(map(ip_network, networks)), Patterns(repositories))


ACCESS = Access(
    [
        grant(["127.0.0.0/8", "::1"], "**"),
        grant(["10.0.0.0/8", "fd00::/8"], ("docker-hub/**", "!docker-hub/secret/**")),
        grant(["10.1.0.0/16"], "ghcr.io/**"),
    ]
)


@pytest.mark.parametrize(
    ("address", "may", "may_not"),
    [
        ("127.0.0.1", ["docker-hub/a", "docker-hub/secret/a", "x"], []),
        ("::1", ["x"], []),
        ("10.2.0.1", ["docker-hub/a"], ["docker-hub/secret/a", "ghcr.io/a"]),
        ("10.1.0.1", ["docker-hub/a", "ghcr.io/a"], ["docker-hub/secret/a", "x"]),
        ("fd00::7", ["docker-hub/a"], ["ghcr.io/a"]),
        ("::ffff:10.2.0.1", ["docker-hub/a"], ["ghcr.io/a"]),
        ("::ffff:127.0.0.1", ["x"], []),
        ("192.0.2.1", [], ["docker-hub/a", "x"]),
        ("2001:db8::1", [], ["docker-hub/a", "x"]),
        ("::ffff:192.0.2.1", [], ["x"]),
    ],
)
def test_a_client_may_pull_what_its_networks_grant(address: str, may: list[str], may_not: list[str]) -> None:
    mask = ACCESS.classify(ip_address(address))
    assert [name for name in may if not ACCESS.may_pull(mask, name)] == []
    assert [name for name in may_not if ACCESS.may_pull(mask, name)] == []
    assert ACCESS.anything(mask) == bool(may)


def test_a_unix_sockets_peer_is_on_this_host() -> None:
    assert ACCESS.classify(None) == ACCESS.classify(ip_address("127.0.0.1"))


@pytest.mark.parametrize("networks", [["127.0.0.1"], ["::1"], ["0.0.0.0/0"], ["::/0"]])
def test_loopback_of_either_family_lets_a_unix_socket_in(networks: list[str]) -> None:
    access = Access([grant(networks, "**")])
    assert access.may_pull(access.classify(None), "a")


def test_one_grant_does_not_take_away_what_another_gives() -> None:
    access = Access([grant(["0.0.0.0/0"], "a/**"), grant(["0.0.0.0/0"], ("**", "!a/**"))])
    mask = access.classify(ip_address("192.0.2.1"))
    assert access.may_pull(mask, "a/b")
    assert access.may_pull(mask, "b")


def test_without_a_grant_nobody_may_anything() -> None:
    access = Access([])
    mask = access.classify(None)
    assert not access.anything(mask)
    assert not access.may_pull(mask, "a")


@given(st.ip_addresses())
def test_a_mask_says_which_grants_hold(address: object) -> None:
    address = ip_address(str(address))
    mask = ACCESS.classify(address)
    plain = getattr(address, "ipv4_mapped", None) or address
    for i, each in enumerate(ACCESS._grants):
        assert bool(mask >> i & 1) == any(plain in network for network in each.networks)
