from __future__ import annotations

import ipaddress

import pytest

from cacheproxy.core.credentials import Login
from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Principal
from cacheproxy.registry.accounts import Account, Accounts
from cacheproxy.registry.guesses import FREE_TOGETHER

ACCOUNTS = Accounts([Account("ci", "s3cret", frozenset({"builders"})), Account("other", "0ther")])


async def test_the_right_secret_proves_the_name() -> None:
    assert await ACCOUNTS.login(Login("ci", "s3cret"), None) == Principal("user:ci", frozenset({"builders"}))


@pytest.mark.parametrize(
    "login",
    [Login("ci", "0ther"), Login("ci", ""), Login("nobody", ""), Login("nobody", "s3cret"), Login("", "")],
)
async def test_anything_else_proves_nothing(login: Login) -> None:
    assert await ACCOUNTS.login(login, None) is None


@pytest.mark.parametrize("name", ["ci", "nobody"])
async def test_who_guesses_a_secret_has_to_wait(name: str) -> None:
    accounts, here = Accounts([Account("ci", "s3cret")]), ipaddress.ip_address("192.0.2.1")
    for number in range(FREE_TOGETHER):
        assert await accounts.login(Login(name, f"guess {number}"), here) is None
    with pytest.raises(OCIError) as refused:
        await accounts.login(Login(name, "s3cret"), here)
    assert refused.value.status == 429
    assert await accounts.login(Login("ci", "s3cret"), ipaddress.ip_address("198.51.100.1")) is not None


async def test_who_knows_the_secret_does_not_notice_who_guesses() -> None:
    accounts, here = Accounts([Account("ci", "s3cret")]), ipaddress.ip_address("192.0.2.1")
    assert await accounts.login(Login("ci", "s3cret"), here) is not None
    for number in range(FREE_TOGETHER):
        assert await accounts.login(Login("ci", f"guess {number}"), here) is None
    with pytest.raises(OCIError):
        await accounts.login(Login("ci", "guess"), here)
    assert await accounts.login(Login("ci", "s3cret"), here) is not None
