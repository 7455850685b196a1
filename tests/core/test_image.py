from __future__ import annotations

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.image import parse_image

D = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "name", "reference"),
    [
        ("debian", "debian", None),
        ("debian:12", "debian", "12"),
        ("ghcr.io/org/tool:v1.2", "ghcr.io/org/tool", "v1.2"),
        ("localhost:5000/tool", "localhost:5000/tool", None),
        ("localhost:5000/tool:1", "localhost:5000/tool", "1"),
        (f"quay.io/org/tool@{D}", "quay.io/org/tool", D),
        (f"tool:1@{D}", "tool", D),
    ],
)
def test_an_image_is_a_name_and_a_reference(text: str, name: str, reference: str | None) -> None:
    assert parse_image(text) == (name, reference)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "NAME_INVALID"),
        ("A", "NAME_INVALID"),
        ("a:", "TAG_INVALID"),
        ("a:b/../c", "NAME_INVALID"),
        ("a@", "DIGEST_INVALID"),
        ("a@sha256:1", "DIGEST_INVALID"),
        ("a:-@" + D, "TAG_INVALID"),
    ],
)
def test_what_is_none_is_refused(text: str, code: str) -> None:
    with pytest.raises(OCIError) as raised:
        parse_image(text)
    assert raised.value.code == code
