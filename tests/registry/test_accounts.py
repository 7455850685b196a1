from __future__ import annotations

import pytest

from cacheproxy.core.credentials import Login
from cacheproxy.core.rights import Principal
from cacheproxy.registry.accounts import Account, Accounts

ACCOUNTS = Accounts([Account("ci", "s3cret", frozenset({"builders"})), Account("other", "0ther")])


async def test_the_right_secret_proves_the_name() -> None:
    assert await ACCOUNTS.login(Login("ci", "s3cret"), None) == Principal("user:ci", frozenset({"builders"}))


@pytest.mark.parametrize(
    "login",
    [Login("ci", "0ther"), Login("ci", ""), Login("nobody", ""), Login("nobody", "s3cret"), Login("", "")],
)
async def test_anything_else_proves_nothing(login: Login) -> None:
    assert await ACCOUNTS.login(login, None) is None
