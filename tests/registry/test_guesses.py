from __future__ import annotations

import ipaddress

from cacheproxy.registry.guesses import (
    FORGOTTEN_AFTER,
    FREE_BY_ADDRESS,
    FREE_BY_NAME,
    FREE_TOGETHER,
    LONGEST_PAUSE,
    MOST,
    Guesses,
)

HERE, THERE = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")


def guessed(times: int, name: str = "alice") -> Guesses:
    guesses = Guesses()
    for _ in range(times):
        guesses.wrong(name, HERE, 0.0)
    return guesses


def test_a_slip_costs_nothing() -> None:
    assert guessed(FREE_TOGETHER - 1).pause("alice", HERE, 0.0) == 0


def test_who_goes_on_waits_longer_each_time_and_never_too_long() -> None:
    pauses = [guessed(FREE_TOGETHER + more).pause("alice", HERE, 0.0) for more in (0, 1, 2, 20)]
    assert pauses == [1, 2, 4, LONGEST_PAUSE]


def test_the_pause_passes() -> None:
    guesses = guessed(FREE_TOGETHER + 1)
    assert guesses.pause("alice", HERE, 1.5) == 0.5
    assert guesses.pause("alice", HERE, 2.0) == 0


def test_guesses_from_elsewhere_do_not_lock_the_owner_out() -> None:
    assert guessed(FREE_TOGETHER + 5).pause("alice", THERE, 0.0) == 0


def test_many_guesses_of_one_name_from_many_addresses_are_slowed() -> None:
    guesses = Guesses()
    for number in range(FREE_BY_NAME):
        guesses.wrong("alice", ipaddress.ip_address(f"198.51.100.{number}"), 0.0)
    assert guesses.pause("alice", HERE, 0.0) > 0
    assert guesses.pause("bob", HERE, 0.0) == 0


def test_many_names_guessed_from_one_address_are_slowed() -> None:
    guesses = Guesses()
    for number in range(FREE_BY_ADDRESS):
        guesses.wrong(f"name{number}", HERE, 0.0)
    assert guesses.pause("alice", HERE, 0.0) > 0
    assert guesses.pause("alice", THERE, 0.0) == 0


def test_a_network_of_ipv6_addresses_is_one_client() -> None:
    guesses = Guesses()
    for number in range(FREE_TOGETHER):
        guesses.wrong("alice", ipaddress.ip_address(f"2001:db8::{number}"), 0.0)
    assert guesses.pause("alice", ipaddress.ip_address("2001:db8::ffff"), 0.0) > 0


def test_a_right_password_forgives_that_name_and_no_other() -> None:
    guesses = guessed(FREE_TOGETHER)
    guesses.right("bob", HERE)
    assert guesses.pause("alice", HERE, 0.0) > 0
    guesses.right("alice", HERE)
    assert guesses.pause("alice", HERE, 0.0) == 0


def test_time_forgives() -> None:
    guesses = guessed(FREE_TOGETHER - 1)
    guesses.wrong("alice", HERE, FORGOTTEN_AFTER + 1)
    assert guesses.pause("alice", HERE, FORGOTTEN_AFTER + 1) == 0


def test_what_is_counted_is_bounded() -> None:
    guesses = Guesses()
    for number in range(MOST):
        guesses.wrong("x" * 100 + str(number), HERE, 0.0)
    assert len(guesses._counts) <= MOST + 3
