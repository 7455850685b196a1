"""Accounts, grants and templates, as the configuration writes them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cacheproxy.config.hosting import Account, Grant, Mutability, Template


def _as_read(value: Any) -> Any:
    """Arrays of the file are tuples by then."""
    if isinstance(value, dict):
        return {key: _as_read(each) for key, each in value.items()}
    return tuple(map(_as_read, value)) if isinstance(value, list) else value


def account(**keys: Any) -> Account:
    return Account.model_validate(_as_read({"name": "builder", "secret": {"command": ["secret"]}, **keys}))


def grant(**keys: Any) -> Grant:
    return Grant.model_validate(_as_read({"to": ["user:builder"], "allow": ["pull"], **keys}))


def template(**keys: Any) -> Template:
    return Template.model_validate(_as_read({"prefix": "team", "applied_for": ["create-on-push"], **keys}))


@pytest.mark.parametrize("name", ["", "a:b", "-a", "a b", "a\n", "ä", "a" * 129])
def test_a_name_that_credentials_could_not_carry_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        account(name=name)
    with pytest.raises(ValidationError):
        account(groups=[name])


def test_an_account_is_in_groups() -> None:
    assert account(name="alice@corp.example", groups=["a", "b"]).groups == ("a", "b")


SECRET = {"command": ["key"]}


def test_an_account_may_have_an_access_key() -> None:
    assert (
        account(access_key="AKIAEXAMPLE0000000001", secret_key=SECRET).access_key == "AKIAEXAMPLE0000000001"
    )
    assert account().access_key is None


@pytest.mark.parametrize(
    "keys", [{"access_key": "AKIAEXAMPLE000000001"}, {"secret_key": SECRET}, {"access_key": "A" * 15}]
)
def test_half_an_access_key_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        account(**keys)


@pytest.mark.parametrize("word", ["user:builder", "group:team", "*"])
def test_a_grant_is_to_somebody(word: str) -> None:
    assert grant(to=[word]).to == (word,)


@pytest.mark.parametrize(
    "word", ["builder", "anonymous", ":builder", "USR:builder", "user:", "user:a:b", "group:a b", ""]
)
def test_a_grant_to_nobody_is_refused(word: str) -> None:
    with pytest.raises(ValidationError, match="is nobody's name"):
        grant(to=[word])
    with pytest.raises(ValidationError):
        grant(to=[])


@pytest.mark.parametrize("keys", [{"allow": []}, {"deny": ["push"]}, {"allow": [], "deny": []}])
def test_a_grant_allows_or_denies(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either allow or deny"):
        grant(**keys)


def test_a_grant_is_for_all_repositories_unless_some_are_named() -> None:
    assert grant().repositories.matches("any/thing")
    assert not grant(repositories="team/**").repositories.matches("other/app")


def test_there_is_no_right_of_another_name() -> None:
    with pytest.raises(ValidationError):
        grant(allow=["write"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mutable", Mutability()),
        ("immutable", Mutability(True)),
        ({"immutable_except": ["latest", "dev-*"]}, Mutability(True, ("latest", "dev-*"))),
        ({"mutable_except": ["v*"]}, Mutability(False, ("v*",))),
    ],
)
def test_tags_stay_or_move(written: object, meant: Mutability) -> None:
    assert template(tag_mutability=written).tag_mutability == meant


@pytest.mark.parametrize(
    "written",
    ["sometimes", True, {}, {"immutable_except": []}, {"immutable_except": "a b"}, {"both": ["a"]}, ["a"]],
)
def test_other_words_for_it_are_refused(written: object) -> None:
    with pytest.raises(ValidationError, match="tag_mutability"):
        template(tag_mutability=written)


@pytest.mark.parametrize("prefix", ["team", "team/ci", "ROOT"])
def test_a_template_covers_whole_segments(prefix: str) -> None:
    assert template(prefix=prefix).prefix == prefix


@pytest.mark.parametrize("prefix", ["", "Team", "team/", "/team", "team/**", "a//b", "../a"])
def test_what_no_name_begins_with_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="is not the beginning of a name"):
        template(prefix=prefix)


@pytest.mark.parametrize("keys", [{"quota_images": 0}, {"sparse": "all"}, {"applied_for": []}, {"other": 1}])
def test_a_template_with_what_means_nothing_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        template(**keys)
