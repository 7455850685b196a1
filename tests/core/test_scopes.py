from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.errors import OCIError
from cacheproxy.core.rights import Right
from cacheproxy.core.scopes import EVERYWHERE, MAX_SCOPES, Scope, parse_scopes, rights_of, written


def scope(name: str, *actions: str) -> Scope:
    return Scope(name, frozenset(actions))


def test_several_scopes_stand_in_one_text_or_in_several() -> None:
    one, two = scope("a", "pull"), scope("b/c", "pull", "push")
    for texts in (
        ["repository:a:pull repository:b/c:pull,push"],
        ["repository:a:pull+repository:b/c:push,pull"],
        ["repository:a:pull", "repository:b/c:pull,push"],
    ):
        assert parse_scopes(texts) == [one, two]


def test_the_name_may_begin_with_a_host_and_its_port() -> None:
    assert parse_scopes(["repository:localhost:5000/a/b:pull"]) == [scope("localhost:5000/a/b", "pull")]


def test_what_is_not_known_here_is_left_out() -> None:
    assert parse_scopes(["registry:other:*", "samalba:my-app:pull"]) == []
    assert parse_scopes(["repository:a:PULL,frobnicate,pull"]) == [scope("a", "pull")]
    assert parse_scopes(["", "repository:a:"]) == [scope("a")]


def test_a_class_of_repositories_says_nothing() -> None:
    assert parse_scopes(["repository(plugin):a:pull"]) == [scope("a", "pull")]


def test_all_actions_are_the_known_ones() -> None:
    assert parse_scopes(["repository:a:*"]) == [scope("a", "pull", "push", "delete", "list")]


def test_the_catalog_is_for_listing_and_nothing_else() -> None:
    assert parse_scopes(["registry:catalog:*"]) == [scope(EVERYWHERE, "list")]
    assert rights_of({"list"}) == {Right.LIST}
    assert written(EVERYWHERE, ["list"]) == "registry:catalog:*"


@pytest.mark.parametrize(
    "text",
    [
        "repository:*:*",
        "repository:a*:pull",
        "repository:a/../b:pull",
        "repository:a//b:pull",
        "repository:A:pull",
        "repository::pull",
        "repository:a",
        "a",
        "repository:a:pull;push",
        f"repository:{'a' * 256}:pull",
        "repository:a\n:pull",
        "repository:%2e:pull",
    ],
)
def test_what_is_no_scope_of_one_repository_is_refused(text: str) -> None:
    with pytest.raises(OCIError) as refused:
        parse_scopes([text])
    assert refused.value.status == 400


def test_too_many_scopes_are_refused() -> None:
    assert len(parse_scopes(["repository:a:pull"] * MAX_SCOPES)) == MAX_SCOPES
    with pytest.raises(OCIError, match="at most 100"):
        parse_scopes(["repository:a:pull"] * MAX_SCOPES + ["repository:a:pull"])


@given(st.lists(st.one_of(st.text(), st.from_regex(r"repository:[a-z*./:]+:[a-z,*]+", fullmatch=True))))
def test_any_text_is_parsed_or_refused_and_no_name_is_a_pattern(texts: list[str]) -> None:
    parsed: list[Scope] = []
    with suppress(OCIError):
        parsed = parse_scopes(texts)
    for each in parsed:
        assert each.name == EVERYWHERE or "*" not in each.name
        assert each.name != EVERYWHERE or each.actions == {"list"}


def test_unknown_actions_give_no_right() -> None:
    assert rights_of(["pull", "admin", "*"]) == {Right.PULL}
    assert rights_of(["push"]) == {Right.PUSH, Right.CREATE}
