"""Names, tags and references by the specification's grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import (
    fallback_tag,
    is_tag,
    parse_digest,
    parse_reference,
    parse_repository,
    parse_requested,
    parse_tag,
)
from tests.core.names import digests, repositories, requested, tags

HEX = "0123456789abcdef" * 4


@given(repositories)
def test_each_name_of_the_grammar_is_read(name: str) -> None:
    assert parse_repository(name) == name
    assert parse_requested(name) == name


@given(requested)
def test_what_is_asked_for_may_begin_with_a_host_and_port(name: str) -> None:
    assert parse_requested(name) == name


@given(st.text("ab0._-/:A \n%\\\x00é", max_size=12))
def test_any_text_is_a_name_by_the_rules_or_refused(text: str) -> None:
    # The rules once more, as prose has them: no regular expression.
    def component(part: str) -> bool:
        squeezed = part.replace("__", "_") if "___" not in part else ""
        for joint in "._-":
            squeezed = squeezed.replace(joint, " ")
        words = squeezed.split(" ")
        inside_dashes = all(set(gap) == {"-"} for gap in _gaps(part) if len(gap) > 1 and gap != "__")
        return inside_dashes and bool(words[0]) and bool(words[-1]) and set(part) <= set("ab0._-")

    if all(component(part) for part in text.split("/")):
        assert parse_repository(text) == text
    else:
        with pytest.raises(OCIError) as caught:
            parse_repository(text)
        assert (caught.value.code, caught.value.status) == ("NAME_INVALID", 400)


def _gaps(part: str) -> list[str]:
    return "".join(" " if c in "ab0" else c for c in part).split()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a/B",
        "a\n",
        "a b",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        ".a",
        "..",
        "a/../b",
        "a/./b",
        "_catalog",
        "a:5000",
        "a/b:5000/c",
        "a\\b",
        "a%2fb",
        "é",
        "\u0430",  # Cyrillic
        "a\x00",
    ],
)
def test_what_is_not_a_name_is_refused(name: str) -> None:
    with pytest.raises(OCIError) as caught:
        parse_repository(name)
    assert caught.value.code == "NAME_INVALID"


@pytest.mark.parametrize("name", ["localhost:5000", "a:/b", "a:123456/b", ":5000/b", "a/b:5000/c", "A:1/b"])
def test_a_port_is_for_a_host_in_front_only(name: str) -> None:
    with pytest.raises(OCIError):
        parse_requested(name)


def test_a_name_has_at_most_255_characters() -> None:
    assert parse_repository("a" * 255)
    with pytest.raises(OCIError):
        parse_repository("a" * 256)


@given(tags)
def test_each_tag_of_the_grammar_is_read(tag: str) -> None:
    assert is_tag(tag)
    assert parse_tag(tag) == tag
    assert parse_reference(tag) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a b", "a\n", "a/b", "a" * 129, "é", "a+b", ".."])
def test_what_is_not_a_tag_is_refused(tag: str) -> None:
    assert not is_tag(tag)
    with pytest.raises(OCIError) as caught:
        parse_tag(tag)
    assert (caught.value.code, caught.value.status) == ("TAG_INVALID", 400)


@given(digests)
def test_a_reference_with_a_colon_is_a_digest(digest: Digest) -> None:
    assert isinstance(parse_reference(str(digest)), Digest)


@pytest.mark.parametrize("text", [f"sha256:{HEX[:-1]}", f"sha256:{HEX.upper()}", "a:b", "sha256:../.."])
def test_a_reference_that_is_almost_a_digest_is_not_a_tag(text: str) -> None:
    with pytest.raises(OCIError) as caught:
        parse_reference(text)
    assert (caught.value.code, caught.value.status) == ("DIGEST_INVALID", 400)


def test_a_bad_digest_is_a_clients_mistake() -> None:
    with pytest.raises(OCIError) as caught:
        parse_digest(HEX)
    assert caught.value.code == "DIGEST_INVALID"


@given(digests)
def test_the_fallback_tag_is_a_tag(digest: Digest) -> None:
    assert is_tag(fallback_tag(digest))


def test_the_fallback_tag_is_the_specified_one() -> None:
    assert fallback_tag(Digest.parse(f"sha256:{HEX}")) == f"sha256-{HEX}"
    assert fallback_tag(Digest.parse(f"sha512:{HEX}{HEX}")) == f"sha512-{HEX}"
