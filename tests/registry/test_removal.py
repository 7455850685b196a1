from __future__ import annotations

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.registry.removal import plan
from cacheproxy.store.removal import Graph

INDEX, AMD, ARM, SIGNATURE, OTHER = (Digest.of(name) for name in (b"index", b"amd", b"arm", b"sig", b"other"))


def graph(*, tags: dict[str, Digest], children: dict[Digest, frozenset[Digest]] | None = None) -> Graph:
    images = dict.fromkeys((INDEX, AMD, ARM, OTHER))
    named = children if children is not None else {INDEX: frozenset({AMD, ARM})}
    return Graph(tags, {**images, SIGNATURE: AMD}, named, frozenset())


def test_a_tag_goes_with_its_image_and_all_that_only_it_needs() -> None:
    assert plan(graph(tags={"1": INDEX, "2": OTHER}), "1") == (
        [("1", INDEX)],
        {INDEX, AMD, ARM, SIGNATURE},
    )


def test_an_image_with_another_tag_stays() -> None:
    assert plan(graph(tags={"1": INDEX, "2": INDEX}), "1") == ([("1", INDEX)], set())


def test_an_image_goes_by_its_digest_with_all_its_tags() -> None:
    tags, images = plan(graph(tags={"1": OTHER, "2": OTHER}), OTHER)
    assert (sorted(tags), images) == ([("1", OTHER), ("2", OTHER)], {OTHER})


@pytest.mark.parametrize(
    ("tags", "children"),
    [
        ({"1": INDEX, "arm": ARM}, {INDEX: frozenset({AMD, ARM})}),
        ({"1": INDEX, "2": OTHER}, {INDEX: frozenset({AMD, ARM}), OTHER: frozenset({ARM})}),
    ],
    ids=["a tag", "an index"],
)
def test_an_image_of_an_index_stays_that_something_else_means(
    tags: dict[str, Digest], children: dict[Digest, frozenset[Digest]]
) -> None:
    assert plan(graph(tags=tags, children=children), "1")[1] == {INDEX, AMD, SIGNATURE}


def test_images_that_name_one_another_in_a_circle_end() -> None:
    circle = {INDEX: frozenset({AMD}), AMD: frozenset({INDEX})}
    assert plan(graph(tags={}, children=circle), INDEX)[1] == {INDEX, AMD, SIGNATURE}


def test_an_index_may_name_what_is_not_here() -> None:
    sparse = {INDEX: frozenset({Digest.of(b"not here")})}
    assert plan(graph(tags={"1": INDEX}, children=sparse), "1")[1] == {INDEX}


def test_what_is_not_here_takes_nothing_along() -> None:
    assert plan(graph(tags={}), "1") == ([], set())
    assert plan(graph(tags={}), Digest.of(b"unknown")) == ([], set())


def test_without_a_reference_all_goes() -> None:
    tags, images = plan(graph(tags={"1": INDEX}), None)
    assert (tags, images) == ([("1", INDEX)], {INDEX, AMD, ARM, SIGNATURE, OTHER})
