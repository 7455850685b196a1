from __future__ import annotations

import pytest

from cacheproxy.core.settings import Settings
from cacheproxy.core.templates import ROOT, Birth, Template, Templates


def template(prefix: str, *births: Birth) -> Template:
    return Template(prefix, frozenset(births or Birth), Settings(description=prefix))


ALL = [template("team"), template("team/app"), template(ROOT), template("pulled", Birth.PULL)]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("team/app", "team/app"),
        ("team/app/x", "team/app"),
        ("team/apps", "team"),
        ("team", "team"),
        ("teams/x", ROOT),
        ("other", ROOT),
        ("library/alpine", ROOT),
        ("pulled/x", ROOT),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(name: str, prefix: str) -> None:
    chosen = Templates(ALL).choose(name, Birth.PUSH)
    assert chosen is not None
    assert chosen.prefix == prefix


def test_a_template_is_for_some_births_only() -> None:
    templates = Templates([template("pulled", Birth.PULL)])
    assert templates.choose("pulled/x", Birth.PUSH) is None
    assert templates.choose("pulled/x", Birth.PULL) is not None


def test_without_a_template_nothing_is_chosen() -> None:
    assert Templates([template("team")]).choose("other/x", Birth.PUSH) is None


def test_root_does_not_shadow_the_default_upstreams_own_images() -> None:
    templates = Templates([template(ROOT)], default_upstream=True)
    assert templates.choose("library/alpine", Birth.PUSH) is None
    assert templates.choose("team/app", Birth.PUSH) is not None
    declared = Templates([template(ROOT), template("library")], default_upstream=True)
    assert declared.choose("library/alpine", Birth.PUSH) is not None
