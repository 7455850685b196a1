"""Rights: what rules give and take, and that each request needs one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core import operations as ops
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import ANONYMOUS, NEEDS, Principal, Right, Rule, Rules, methods

ALICE = Principal("user:alice", frozenset({"platform"}))
PULL = frozenset({Right.PULL})


def rule(*to: str, rights: frozenset[Right] = PULL, repositories: str = "**", deny: bool = False) -> Rule:
    return Rule(frozenset(to), rights, Patterns(repositories), deny)


@pytest.mark.parametrize("word", ["user:alice", "group:platform", "*"])
def test_a_rule_names_a_principal_by_name_by_group_or_as_anyone(word: str) -> None:
    assert Rules([rule(word)]).rights(ALICE, "a") == PULL


@pytest.mark.parametrize("word", ["alice", "user:bob", "group:alice", "platform", ANONYMOUS])
def test_other_words_do_not_name_it(word: str) -> None:
    assert Rules([rule(word)]).rights(ALICE, "a") == frozenset()


def test_who_gives_no_name_is_not_anyone() -> None:
    rules = Rules([rule("*")])
    assert rules.rights(None, "a") == frozenset()
    assert not rules.anything(None)


def test_who_gives_no_name_has_what_is_given_to_the_anonymous() -> None:
    rules = Rules([rule(ANONYMOUS, repositories="public/**")])
    assert rules.rights(None, "public/a") == PULL
    assert rules.rights(None, "private/a") == frozenset()


def test_a_rule_is_for_its_repositories() -> None:
    rules = Rules([rule("*", repositories="team/**")])
    assert rules.rights(ALICE, "team/a") == PULL
    assert rules.rights(ALICE, "teams/a") == frozenset()


def test_rules_add_up() -> None:
    rules = Rules([rule("*"), rule("user:alice", rights=frozenset({Right.PUSH}))])
    assert rules.rights(ALICE, "a") == {Right.PULL, Right.PUSH}


def test_a_rule_that_gives_nothing_lets_nobody_in() -> None:
    assert not Rules([rule("*", deny=True)]).anything(ALICE)


words = st.sampled_from(["user:alice", "group:platform", "*", "user:bob"])
rights = st.frozensets(st.sampled_from(Right))
some_rules = st.lists(
    st.builds(
        Rule, st.frozensets(words), rights, st.sampled_from([Patterns("**"), Patterns("a")]), st.booleans()
    )
)


@given(some_rules, rights)
def test_what_one_rule_takes_away_no_other_gives(rules: list[Rule], taken: frozenset[Right]) -> None:
    denied = Rule(frozenset({"*"}), taken, Patterns("**"), deny=True)
    for at in (0, len(rules)):
        held = Rules([*rules[:at], denied, *rules[at:]]).rights(ALICE, "a")
        assert held == Rules(rules).rights(ALICE, "a") - taken


@given(some_rules)
def test_the_order_of_rules_does_not_matter(rules: list[Rule]) -> None:
    assert Rules(rules).rights(ALICE, "a") == Rules(reversed(rules)).rights(ALICE, "a")


def test_each_operation_has_a_method() -> None:
    assert {operation for operation, _ in NEEDS} == set(ops.Operation.__args__)


def test_head_is_as_get() -> None:
    assert methods(ops.Manifest) == ("GET", "HEAD", "PUT", "DELETE")
    assert methods(ops.Uploads) == ("POST",)


NEAR, FAR = ip_address("10.0.0.9"), ip_address("192.0.2.1")
NETWORKS = (ip_network("10.0.0.0/8"),)


def bound(deny: bool) -> Rules:
    return Rules([rule("*", repositories="always"), replace(rule("*", deny=deny), networks=NETWORKS)])


def test_a_rule_of_a_network_holds_there_only() -> None:
    rules = bound(deny=False)
    assert rules.rights(ALICE, "a", rules.classify(NEAR)) == PULL
    assert rules.rights(ALICE, "a", rules.classify(FAR)) == frozenset()
    assert rules.rights(ALICE, "a", rules.classify(None)) == frozenset()
    assert rules.rights(ALICE, "always", rules.classify(FAR)) == PULL


def test_of_whom_nobody_knows_where_it_is_networks_take_and_do_not_give() -> None:
    for deny in (False, True):
        rules = bound(deny)
        lost = rules.classify(None, anywhere=True)
        assert rules.rights(ALICE, "a", lost) == frozenset()
        assert rules.rights(ALICE, "always", lost) == (frozenset() if deny else PULL)


def test_the_rules_that_say_something_are_named() -> None:
    rules = Rules([rule("user:bob"), rule("*", repositories="b"), rule("*", repositories="a", deny=True)])
    (matching,) = rules.matching(ALICE, "a")
    assert matching.deny
