from __future__ import annotations

import ipaddress
import threading
from typing import Any

import bcrypt
import pytest
import trio

from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal
from cacheproxy.registry import passwords as module
from cacheproxy.registry.attempts import REMEMBERED_FOR
from cacheproxy.registry.guesses import FREE_TOGETHER
from cacheproxy.registry.passwords import AT_ONCE, IN_LINE, LONGEST, Passwords

HERE = ipaddress.ip_address("192.0.2.1")
SECRET = "correct horse"
HASH = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4))
RIGHT = Login("alice", SECRET)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Checks:
    """What is hashed, and how many at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[bytes] = []
        self.now = self.most = 0
        self.go = threading.Event()
        self.go.set()
        self._lock = threading.Lock()
        self._real = module._check
        monkeypatch.setattr(module, "_check", self.check)

    def check(self, password: bytes, hashed: bytes) -> bool:
        with self._lock:
            self.seen.append(hashed)
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.wait(5)
        with self._lock:
            self.now -= 1
        return self._real(password, hashed)


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
def passwords(wall: Clock) -> Passwords:
    return Passwords({"alice": HASH}, wall)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    return Checks(monkeypatch)


async def test_the_password_proves_the_name(passwords: Passwords) -> None:
    assert await passwords.login(RIGHT, HERE) == Principal("user:alice")
    for login in (Login("alice", "wrong"), Login("alice", ""), Login("bob", SECRET), Login("", SECRET)):
        assert await passwords.login(login, HERE) is None


async def test_a_name_that_does_not_exist_costs_as_much(passwords: Passwords, checks: Checks) -> None:
    assert await passwords.login(Login("bob", SECRET), HERE) is None
    (hashed,) = checks.seen
    assert hashed != HASH
    assert hashed[:7] == HASH[:7]


async def test_a_right_password_is_hashed_once_in_some_minutes(
    passwords: Passwords, checks: Checks, wall: Clock
) -> None:
    for _ in range(3):
        assert await passwords.login(RIGHT, HERE) is not None
    assert len(checks.seen) == 1
    wall.now += REMEMBERED_FOR
    assert await passwords.login(RIGHT, HERE) is not None
    assert len(checks.seen) == 2


async def test_what_is_remembered_is_not_the_password(passwords: Passwords) -> None:
    await passwords.login(RIGHT, HERE)
    (mark,) = passwords._attempts._right
    assert len(mark) == 32
    assert SECRET.encode() not in mark


async def test_a_password_that_bcrypt_would_cut_is_refused(checks: Checks, wall: Clock) -> None:
    longest = "x" * LONGEST
    passwords = Passwords({"alice": bcrypt.hashpw(longest.encode(), bcrypt.gensalt(4))}, wall)
    assert await passwords.login(Login("alice", longest), HERE) is not None
    assert await passwords.login(Login("alice", longest + "y"), HERE) is None
    assert await passwords.login(Login("alice", f"{longest[:-1]}\0"), HERE) is None
    assert len(checks.seen) == 1


async def test_who_guesses_is_told_to_wait_and_the_right_one_counts_afterwards(
    passwords: Passwords, checks: Checks, wall: Clock
) -> None:
    for _ in range(FREE_TOGETHER):
        assert await passwords.login(Login("alice", "wrong"), HERE) is None
    with pytest.raises(OCIError) as refused:
        await passwords.login(RIGHT, HERE)
    assert (refused.value.status, refused.value.headers) == (429, (("Retry-After", "2"),))
    assert len(checks.seen) == FREE_TOGETHER
    wall.now += 2
    assert await passwords.login(RIGHT, HERE) is not None


async def test_who_is_remembered_does_not_notice_that_others_guess(passwords: Passwords) -> None:
    assert await passwords.login(RIGHT, HERE) is not None
    for _ in range(FREE_TOGETHER):
        await passwords.login(Login("alice", "wrong"), HERE)
    assert await passwords.login(RIGHT, HERE) is not None


async def test_few_are_hashed_at_once_and_more_are_sent_away(passwords: Passwords, checks: Checks) -> None:
    checks.go.clear()
    heard: list[Any] = []

    async def login(number: int) -> None:
        try:
            heard.append(await passwords.login(Login(f"name{number}", "wrong"), HERE))
        except OCIError as error:
            heard.append(error.status)

    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE + IN_LINE + 5):
            nursery.start_soon(login, number)
        while len(heard) < 5 or checks.now < AT_ONCE:
            await trio.sleep(0.001)
        checks.go.set()
    assert sorted(map(str, heard)) == ["429"] * 5 + ["None"] * (AT_ONCE + IN_LINE)
    assert checks.most == AT_ONCE
