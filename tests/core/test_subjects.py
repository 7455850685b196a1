"""Names made of what others say: nobody becomes somebody else."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal
from cacheproxy.core.subjects import WORD, Subjects, Template, Unmapped, kind_of

GITHUB = {
    "sub": ("repo:acme/app:ref:refs/heads/main",),
    "repository": ("acme/app",),
    "repository_owner": ("acme",),
    "ref": ("refs/heads/main",),
    "aud": ("cacheproxy",),
}


def test_a_claim_becomes_a_name() -> None:
    assert Subjects(Template("ci:{repository}")).principal(GITHUB) == Principal("ci:acme/app")


def test_one_claim_alone_may_hold_colons() -> None:
    name = Subjects(Template("github:{sub}")).principal(GITHUB).name
    assert name == "github:repo:acme/app:ref:refs/heads/main"


def test_several_claims_stand_between_colons() -> None:
    name = Subjects(Template("ci:{repository}:{ref}")).principal(GITHUB).name
    assert name == "ci:acme/app:refs/heads/main"


def test_groups_are_made_of_claims_and_of_lists() -> None:
    subjects = Subjects(Template("sso:{sub}"), (Template("sso-{groups}"), Template("people")))
    said = {"sub": ("carol",), "groups": ("dev", "ops", "no group's name", "")}
    assert subjects.principal(said) == Principal("sso:carol", frozenset({"sso-dev", "sso-ops", "people"}))


def test_a_group_of_a_claim_that_is_not_there_is_none() -> None:
    subjects = Subjects(Template("sso:{sub}"), (Template("{team}"), Template("{a}:{b}")))
    assert subjects.principal({"sub": ("carol",)}).groups == frozenset()


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({}, 'has no "repository"'),
        ({"repository": ()}, 'has no "repository"'),
        ({"repository": ("a", "b")}, 'has more than one "repository"'),
        ({"repository": ("",)}, "is no name of a principal"),
        ({"repository": ("a b",)}, "is no name of a principal"),
        ({"repository": ("a\nb",)}, "is no name of a principal"),
        ({"repository": ("a\0",)}, "is no name of a principal"),
        ({"repository": ("é",)}, "is no name of a principal"),
        ({"repository": ("*",)}, "is no name of a principal"),
        ({"repository": ("a" * 300,)}, "is no name of a principal"),
    ],
)
def test_what_makes_no_name_is_nobody(claims: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(Unmapped, match=words):
        Subjects(Template("ci:{repository}")).principal(claims)


def test_a_colon_does_not_reach_into_the_next_part() -> None:
    subjects = Subjects(Template("ci:{project}:{ref}"))
    assert subjects.principal({"project": ("a",), "ref": ("b",)}).name == "ci:a:b"
    for claims in ({"project": ("a:b",), "ref": ("c",)}, {"project": ("a",), "ref": ("b:c",)}):
        with pytest.raises(Unmapped, match='has a ":"'):
            subjects.principal(claims)


@pytest.mark.parametrize(
    ("required", "holds"),
    [
        ({"repository_owner": "acme"}, True),
        ({"repository_owner": "other"}, False),
        ({"repository_owner": "acm"}, False),
        ({"ref": ("refs/heads/main", "refs/tags/*")}, True),
        ({"ref": "refs/tags/*"}, False),
        ({"ref": ("**", "!refs/heads/main")}, False),
        ({"environment": "**"}, False),
        ({"repository_owner": "acme", "environment": "production"}, False),
    ],
)
def test_claims_that_are_required(required: dict[str, str | tuple[str, ...]], holds: bool) -> None:
    patterns = {name: Patterns(texts) for name, texts in required.items()}
    subjects = Subjects(Template("ci:{repository}"), required=patterns)
    if holds:
        assert subjects.principal(GITHUB).name == "ci:acme/app"
    else:
        with pytest.raises(Unmapped, match="that is accepted here"):
            subjects.principal(GITHUB)


def test_of_a_list_one_value_is_enough() -> None:
    subjects = Subjects(Template("sso:{sub}"), required={"groups": Patterns("ops")})
    assert subjects.principal({"sub": ("a",), "groups": ("dev", "ops")}).name == "sso:a"


def test_what_is_needed_makes_the_same_principal() -> None:
    subjects = Subjects(
        Template("ci:{repository}"), (Template("gh-{repository_owner}"),), {"ref": Patterns("**")}
    )
    needed = subjects.needed(GITHUB)
    assert needed.keys() == {"repository", "repository_owner", "ref"}
    assert subjects.principal(needed) == subjects.principal(GITHUB)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ci:{a}{b}", 'needs a ":" between'),
        ("ci:{a}-{b}", 'needs a ":" between'),
        ("ci:{}", "braces without"),
        ("ci:{a b}", "braces without"),
        ("ci:{a", "other characters"),
        ("ci:a}", "other characters"),
        ("ci:{{a}}", "other characters"),
        ("ci: {a}", "other characters"),
    ],
)
def test_a_template_that_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Template(text)


@pytest.mark.parametrize("text", ["{sub}", "ci", "CI:{sub}", ":{sub}", "c i:{sub}", "{a}:{b}", ""])
def test_no_claim_decides_of_what_kind_somebody_is(text: str) -> None:
    with pytest.raises(ValueError, match="kind of its own"):
        kind_of(text)


def test_the_kind_of_a_template() -> None:
    assert kind_of("ci:{repository}:{ref}") == "ci"


TEMPLATES = st.sampled_from(["ci:{a}", "ci:{a}:{b}", "ci:x-{a}:at:{b}/y", "ci:{a}:{b}:{c}", "ci:{a}/fixed"])
VALUES = st.text("ab:/-.{}", max_size=6) | st.text(max_size=4)
CLAIMS = st.fixed_dictionaries({name: VALUES.map(lambda value: (value,)) for name in "abc"})


@given(TEMPLATES, CLAIMS, CLAIMS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_one_name_is_never_made_of_two_subjects(
    text: str, one: dict[str, tuple[str, ...]], other: dict[str, tuple[str, ...]]
) -> None:
    template = Template(text)
    try:
        names = template.fill(one), template.fill(other)
    except Unmapped:
        return
    same = all(one[claim] == other[claim] for claim in template.claims)
    assert (names[0] == names[1]) == same


@given(TEMPLATES, CLAIMS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_principal_is_a_word_of_its_kind_or_nobody(text: str, claims: dict[str, tuple[str, ...]]) -> None:
    try:
        name = Subjects(Template(text)).principal(claims).name
    except Unmapped:
        return
    assert re.fullmatch(WORD, name)
    assert name.startswith("ci:")
