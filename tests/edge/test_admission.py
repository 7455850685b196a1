from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.edge.admission import Admission, key_of
from cacheproxy.edge.limits import Limits

LIMITS = Limits(connections=3, per_address=2)


def test_the_total_is_limited() -> None:
    admission = Admission(LIMITS)
    assert [admission.enter(key) for key in (1, 2, 3, 4)] == [None, None, None, "total"]


def test_one_address_is_limited() -> None:
    admission = Admission(LIMITS)
    assert [admission.enter(key) for key in (1, 1, 1, 2)] == [None, None, "address", None]


def test_nobodys_share_counts_in_the_total_only() -> None:
    admission = Admission(LIMITS)
    assert [admission.enter(None) for _ in range(4)] == [None, None, None, "total"]


def test_who_leaves_makes_room() -> None:
    admission = Admission(LIMITS)
    admission.enter(1)
    admission.enter(1)
    admission.leave(1)
    assert admission.enter(1) is None


def test_an_ipv6_neighbour_has_one_share_for_all_its_addresses() -> None:
    one, same, other = map(ipaddress.ip_address, ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"))
    assert key_of(one) == key_of(same) != key_of(other)


def test_families_do_not_share() -> None:
    assert key_of(ipaddress.ip_address("0.0.0.1")) != key_of(ipaddress.ip_address("0:0:0:1::"))


@given(st.lists(st.sampled_from([1, 2, None]), max_size=30))
def test_nothing_is_left_when_all_have_left(keys: list[int | None]) -> None:
    admission = Admission(LIMITS)
    inside = [key for key in keys if admission.enter(key) is None]
    assert admission.total == len(inside) <= 3
    for key in inside:
        admission.leave(key)
    assert (admission.total, admission.shares) == (0, {})


@pytest.mark.parametrize(("descriptors", "connections"), [(1024, 384), (65_536, 16_384), (1 << 20, 16_384)])
def test_there_is_a_descriptor_for_each_blob_and_some_for_everything_else(
    descriptors: int, connections: int
) -> None:
    limits = Limits.within(descriptors)
    assert (limits.connections, limits.per_address) == (connections, connections // 4)
