"""Media types: what is asked for covers what is understood."""

from __future__ import annotations

import pytest

from cacheproxy.core import media


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("application/vnd.oci.image.index.v1+json", "index"),
        ("application/vnd.docker.distribution.manifest.list.v2+json", "index"),
        ("application/vnd.oci.image.manifest.v1+json", "image"),
        ("application/vnd.docker.distribution.manifest.v2+json", "image"),
        ("application/vnd.cncf.oras.artifact.manifest.v1+json", "artifact"),
        ("application/vnd.oci.artifact.manifest.v1+json", "artifact"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_kind_of_a_type(media_type: str, kind: str | None) -> None:
    assert media.KINDS.get(media_type) == kind


def test_upstreams_are_asked_for_each_type_that_is_read_and_no_other() -> None:
    assert media.ACCEPT.split(", ") == list(media.KINDS)
    assert not media.SCHEMA1_TYPES & media.KINDS.keys()
