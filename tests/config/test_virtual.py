"""Which virtual prefixes there can be beside upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cacheproxy.config.sections import Upstream
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.virtual import Virtual, virtual_conflicts

HUB = {"registry": "docker.io", "prefix": "docker-hub"}
QUAY = {"registry": "quay.io"}
HOME = {
    "registry": "a.io",
    "url": "https://a.io",
    "prefix": "home",
    "authority": "caller",
    "hosts": ("a.cache",),
}


def found(*virtuals: dict[str, Any]) -> list[tuple[Key, Key]]:
    """The place of each conflict, and the other place that it names."""
    upstreams = [(number, Upstream.model_validate(each)) for number, each in enumerate((HUB, QUAY, HOME))]
    made = [(number, Virtual.model_validate(each)) for number, each in enumerate(virtuals)]
    conflicts = list(virtual_conflicts(made, upstreams))
    assert all("{other}" in conflict.text for conflict in conflicts if conflict.other != ("virtual", 0))
    return [(conflict.key, conflict.other) for conflict in conflicts]


def virtual(*members: str, prefix: str = "all", push: str | None = None) -> dict[str, Any]:
    return {"prefix": prefix, "members": members, "push": push}


def at(*key: str | int) -> Key:
    return ("virtual", 0, *key)


@pytest.mark.parametrize(
    "virtuals",
    [
        [virtual("docker-hub")],
        [virtual("platform", "team/ci", "docker-hub", "quay.io", push="team/ci")],
        [virtual("platform"), virtual("platform", "docker-hub", prefix="other")],
        [virtual("docker-hub", prefix="docker/all")],
    ],
)
def test_what_fits(virtuals: Sequence[dict[str, Any]]) -> None:
    assert found(*virtuals) == []


@pytest.mark.parametrize(
    ("wrong", "key", "other"),
    [
        (virtual("a", prefix="docker-hub"), at("prefix"), ("upstream", 0, "prefix")),
        (virtual("a", prefix="docker-hub/x"), at("prefix"), ("upstream", 0, "prefix")),
        (virtual("a", prefix="docker.io/x"), at("prefix"), ("upstream", 0, "registry")),
        (virtual("docker-hub", "platform"), at("members", 1), at("members", 0)),
        (virtual("platform", "platform"), at("members", 1), at("members", 0)),
        (virtual("docker.io"), at("members", 0), ("upstream", 0, "prefix")),
        (virtual("docker-hub/library"), at("members", 0), ("upstream", 0, "prefix")),
        (virtual("ghcr.io"), at("members", 0), at()),
        (virtual("home"), at("members", 0), ("upstream", 2, "authority")),
        (virtual("all/x"), at("members", 0), at("prefix")),
        (virtual("platform", "docker-hub", push="docker-hub"), at("push"), at("members")),
        (virtual("platform", push="other"), at("push"), at("members")),
    ],
)
def test_what_does_not(wrong: dict[str, Any], key: Key, other: Key) -> None:
    assert found(wrong) == [(key, other)]


def test_two_virtual_prefixes_are_two_names_and_no_members_of_each_other() -> None:
    assert found(virtual("docker-hub"), virtual("quay.io", prefix="all/more")) == [
        (("virtual", 1, "prefix"), at("prefix"))
    ]
    assert found(virtual("docker-hub"), virtual("all", prefix="more")) == [
        (("virtual", 1, "members", 0), at("prefix"))
    ]
