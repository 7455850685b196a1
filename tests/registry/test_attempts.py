from __future__ import annotations

import ipaddress

import pytest

from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.registry import attempts as module
from cacheproxy.registry.attempts import REMEMBERED_FOR, Attempts
from cacheproxy.registry.guesses import FREE_TOGETHER, LONGEST_PAUSE

HERE = ipaddress.ip_address("192.0.2.1")
RIGHT = Login("alice", "right")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guessed(attempts: Attempts, name: str = "alice") -> None:
    for number in range(FREE_TOGETHER):
        attempts.wrong(Login(name, f"wrong {number}"), HERE)


def test_who_guesses_waits_and_is_told_how_long() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    attempts.demand(RIGHT, HERE)
    guessed(attempts)
    with pytest.raises(OCIError, match="too many wrong passwords for alice") as refused:
        attempts.demand(RIGHT, HERE)
    assert refused.value.status == 429
    assert int(dict(refused.value.headers)["Retry-After"]) >= 1
    clock.now += LONGEST_PAUSE
    attempts.demand(RIGHT, HERE)


def test_who_was_right_minutes_ago_does_not_notice() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    attempts.right(RIGHT, HERE)
    assert attempts.remembered(RIGHT)
    guessed(attempts)
    attempts.demand(RIGHT, HERE)
    with pytest.raises(OCIError):
        attempts.demand(Login("alice", "other"), HERE)
    clock.now += REMEMBERED_FOR
    assert not attempts.remembered(RIGHT)


def test_what_was_right_and_is_wrong_now_is_not_remembered() -> None:
    attempts = Attempts(Clock())
    attempts.right(RIGHT, HERE)
    attempts.wrong(RIGHT, HERE)
    assert not attempts.remembered(RIGHT)


@pytest.mark.parametrize(
    "other", [Login("alice", "righ"), Login("alice:r", "ight"), Login("alice:right", "")]
)
def test_only_the_same_login_is_remembered(other: Login) -> None:
    attempts = Attempts(Clock())
    attempts.right(RIGHT, HERE)
    assert not attempts.remembered(other)


def test_no_more_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    attempts = Attempts(Clock())
    for number in range(5):
        attempts.right(Login("alice", f"{number}"), HERE)
        assert len(attempts._right) <= 2
    assert attempts.remembered(Login("alice", "4"))
