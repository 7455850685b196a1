"""Templates that could never apply are refused, whatever they say."""

from __future__ import annotations

from typing import Any

import pytest

from cacheproxy.config.hosting import Template
from cacheproxy.config.sections import Upstream
from cacheproxy.config.templates import template_conflicts
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.virtual import Virtual

UPSTREAMS = [
    (0, Upstream.model_validate({"registry": "docker.io", "prefix": "mirror/hub"})),
    (1, Upstream.model_validate({"registry": "quay.io"})),
]
VIRTUALS = [(0, Virtual.model_validate({"prefix": "all", "members": ("team",)}))]
PUSH, PULL = "create-on-push", "pull-through-cache"


def found(prefix: str, *births: str, **keys: Any) -> list[tuple[Key, Key]]:
    """The place of each conflict, and the other place that it names."""
    template = Template.model_validate({"prefix": prefix, "applied_for": births, **keys})
    return [(each.key, each.other) for each in template_conflicts([(0, template)], UPSTREAMS, VIRTUALS)]


def at(key: str) -> Key:
    return ("template", 0, key)


@pytest.mark.parametrize(
    ("prefix", "births"),
    [
        ("ROOT", [PUSH]),
        ("ROOT", [PUSH, PULL]),
        ("ROOT", [PULL]),
        ("team", [PUSH]),
        ("mirror", [PUSH, PULL]),
        ("mirror/hub", [PULL]),
        ("mirror/hub/library", [PULL]),
        ("quay.io/org", [PULL]),
        ("mirror/other", [PUSH]),
    ],
)
def test_what_applies_is_fine(prefix: str, births: list[str]) -> None:
    assert found(prefix, *births) == []


@pytest.mark.parametrize(
    ("prefix", "births", "key", "other"),
    [
        ("mirror/hub", [PUSH], "applied_for", ("upstream", 0, "prefix")),
        ("mirror/hub/library", [PUSH, PULL], "applied_for", ("upstream", 0, "prefix")),
        ("docker.io/library", [PULL], "prefix", ("upstream", 0, "prefix")),
        ("docker.io", [PUSH], "prefix", ("upstream", 0, "prefix")),
        ("team", [PULL], "applied_for", ("template", 0, "prefix")),
        ("team", [PUSH, PULL], "applied_for", ("template", 0, "prefix")),
        ("all", [PUSH], "prefix", ("virtual", 0, "prefix")),
        ("all/team", [PUSH], "prefix", ("virtual", 0, "prefix")),
    ],
)
def test_what_never_applies_is_refused(prefix: str, births: list[str], key: str, other: Key) -> None:
    assert found(prefix, *births) == [(at(key), other)]


def test_a_quota_is_of_what_is_pushed() -> None:
    assert found("ROOT", PULL, quota="1GiB", quota_images=5) == [
        (at("quota"), at("applied_for")),
        (at("quota_images"), at("applied_for")),
    ]
    assert found("ROOT", PULL, PUSH, quota="1GiB") == []
