"""Patterns: rows for what people write, and a naive matcher for all the rest."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.patterns import Patterns


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("**", ["a", "a/b", "a/b/c"], []),
        ("*", ["a", "latest", "v1.2"], ["a/b"]),
        ("*/*", ["a/b"], ["a", "a/b/c"]),
        ("team/**", ["team/a", "team/a/b"], ["team", "teams/a", "a/team/b"]),
        ("**/cache", ["cache", "a/cache", "a/b/cache"], ["cache/a", "mycache"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a", "z", "a/b", "a/zz"]),
        ("a/**/m/**/z", ["a/m/z", "a/b/m/c/d/z", "a/m/m/z"], ["a/z", "a/m", "a/b/z"]),
        ("**/**", ["a", "a/b"], []),
        ("a/**/m/**/m/**/z", ["a/m/m/z", "a/m/x/m/z"], ["a/m/z", "a/m/x/z"]),
        ("team/*", ["team/a"], ["team/a/b", "team"]),
        ("v*", ["v", "v1", "v1.2"], ["1v", "v/1"]),
        ("*-dev", ["a-dev", "-dev"], ["dev", "a-dev2"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["ab", "acb", "abca"]),
        ("ab*ba", ["abba", "abxba"], ["aba"]),
        ("latest", ["latest"], ["latest2", "alatest", "Latest"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_a_pattern_matches(pattern: str, names: list[str], others: list[str]) -> None:
    patterns = Patterns(pattern)
    assert [name for name in names if not patterns.matches(name)] == []
    assert [name for name in others if patterns.matches(name)] == []


@pytest.mark.parametrize(
    ("texts", "names", "others"),
    [
        (("**", "!x/**"), ["a", "a/x/b", "x"], ["x/a", "x/a/b"]),
        (("**", "!x/**", "x/y"), ["a", "x/y"], ["x/a"]),
        (("!x", "**"), ["x", "a"], []),
        (("!x",), [], ["x", "a"]),
        ((), [], ["a"]),
        (("a", "b"), ["a", "b"], ["c"]),
    ],
)
def test_the_last_that_matches_decides(texts: tuple[str, ...], names: list[str], others: list[str]) -> None:
    patterns = Patterns(texts)
    assert [name for name in names if not patterns.matches(name)] == []
    assert [name for name in others if patterns.matches(name)] == []


@pytest.mark.parametrize(
    "text",
    ["", "!", "/a", "a/", "a//b", "a**", "**a", "***", "a b", "[a]", "a\\b", "!!a", "é", "a\n", "{a,b}"],
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        Patterns((text,))


def test_one_text_is_a_list_of_one() -> None:
    assert Patterns("**") == Patterns(("**",))
    assert Patterns("**").texts == ("**",)


def test_patterns_are_equal_by_their_texts() -> None:
    assert Patterns(("a", "b")) == Patterns(["a", "b"])
    assert Patterns(("a", "b")) != Patterns(("b", "a"))
    assert len({Patterns("a"), Patterns("a"), Patterns("b")}) == 2


segments = st.text("ab*", min_size=1, max_size=4).filter(lambda text: "**" not in text)
pattern_texts = st.lists(st.one_of(segments, st.just("**")), min_size=1, max_size=5).map("/".join)
names = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6).map("/".join)


def naive(pattern: str, name: str) -> bool:
    """The grammar read aloud: try everything."""
    segments, parts = pattern.split("/"), name.split("/")

    @cache
    def glob(text: str, part: str) -> bool:
        if not text:
            return not part
        if text[0] == "*":
            return any(glob(text[1:], part[i:]) for i in range(len(part) + 1))
        return part[:1] == text[0] and glob(text[1:], part[1:])

    @cache
    def path(i: int, j: int) -> bool:
        if i == len(segments):
            return j == len(parts)
        if segments[i] == "**":
            least = 1 if i == len(segments) - 1 else 0
            return any(path(i + 1, k) for k in range(j + least, len(parts) + 1))
        return j < len(parts) and glob(segments[i], parts[j]) and path(i + 1, j + 1)

    return path(0, 0)


@given(pattern_texts, names)
def test_one_pattern_is_the_naive_matcher(pattern: str, name: str) -> None:
    assert Patterns(pattern).matches(name) == naive(pattern, name)


@given(st.lists(st.tuples(st.booleans(), pattern_texts), max_size=4), names)
def test_several_patterns_are_the_naive_matcher_in_order(rules: list[tuple[bool, str]], name: str) -> None:
    expected = False
    for adds, pattern in rules:
        if naive(pattern, name):
            expected = adds
    texts = [pattern if adds else f"!{pattern}" for adds, pattern in rules]
    assert Patterns(texts).matches(name) == expected


@given(names)
def test_a_name_is_a_pattern_for_itself(name: str) -> None:
    assert Patterns(name).matches(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 100 + "b", "a" * 255),
        ("/".join(["**", "a"] * 60 + ["b"]), "/".join("a" * 127)),
    ],
)
def test_no_pattern_goes_back(pattern: str, name: str) -> None:
    patterns = Patterns(pattern)
    started = time.process_time()
    assert not patterns.matches(name)
    assert time.process_time() - started < 0.05
