from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.settings import Settings


@pytest.mark.parametrize(
    ("settings", "movable", "fixed"),
    [
        (Settings(), ["1.0", "latest"], []),
        (Settings(immutable=True), [], ["1.0", "latest"]),
        (Settings(immutable=True, except_tags=("latest", "dev-*")), ["latest", "dev-7"], ["1.0", "dev"]),
        (Settings(except_tags=("v*", "!v0*")), ["latest", "v0.1"], ["v1.0"]),
    ],
)
def test_which_tags_may_move(settings: Settings, movable: list[str], fixed: list[str]) -> None:
    assert all(settings.movable(tag) for tag in movable)
    assert not any(settings.movable(tag) for tag in fixed)


@given(
    st.builds(
        Settings,
        immutable=st.booleans(),
        except_tags=st.lists(st.sampled_from(["a", "b*"])).map(tuple),
        sparse=st.sampled_from(["nothing", "indexes", "images"]),
        description=st.text(),
        labels=st.dictionaries(st.text(), st.text()),
        quota_bytes=st.none() | st.integers(0, 1 << 60),
        quota_images=st.none() | st.integers(0, 1 << 30),
    )
)
def test_settings_come_back_from_their_text(settings: Settings) -> None:
    assert Settings.parse(settings.text()) == settings


def test_nothing_set_is_an_empty_object() -> None:
    assert Settings().text() == "{}"


@pytest.mark.parametrize("text", ["", "[]", '{"unheard-of": 1}', '{"immutable": "yes"}'])
def test_what_was_never_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a repository's settings"):
        Settings.parse(text)
