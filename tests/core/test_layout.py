from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.core import layout
from cacheproxy.core.digest import Digest
from cacheproxy.core.layout import Index, LayoutInvalid, Root, digest_at, named, parse_index, placed
from cacheproxy.core.media import OCI_MANIFEST

A, B = Digest.of(b"a"), Digest.of(b"b", "sha512")

roots = st.builds(
    Root,
    st.sampled_from([A, B]),
    st.just(OCI_MANIFEST),
    st.integers(0, 1 << 40),
    st.sampled_from(["a", "team/app", "a__b/c-d", "docker-hub/library/debian"]),
    st.sampled_from(["", "latest", "v1.2-3_4", "a" * 128]),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(roots), st.frozensets(st.sampled_from([A, B])), st.sampled_from(["", str(A)]))
def test_an_index_is_read_as_it_was_written(found: list[Root], absent: frozenset[Digest], since: str) -> None:
    index = Index(tuple(found), since, "monday.tar" if since else "", absent)
    assert parse_index(layout.index(index)) == index


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=200))
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(LayoutInvalid):
        parse_index(data)


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": [{"digest": "md5:1", "size": 1}]},
        {"manifests": [{"digest": A, "size": -1}]},
        {"manifests": [{"digest": A, "size": 1, "annotations": {layout.REF_NAME: "../../etc"}}]},
        {"manifests": [], "annotations": {layout.ABSENT: "sha256:.."}},
        {"manifests": None},
    ],
)
def test_an_index_of_nonsense_is_refused(document: object) -> None:
    with pytest.raises(LayoutInvalid):
        parse_index(json.dumps(document).encode())


def test_an_index_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(LayoutInvalid):
        parse_index(b'{"manifests": ' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (b'{"imageLayoutVersion": "1.0.0"}', True),
        (b'{"imageLayoutVersion": "2.0.0"}', False),
        (b"{}", False),
        (b"", False),
    ],
)
def test_only_the_version_that_is_known_is_read(data: bytes, good: bool) -> None:
    if good:
        layout.check_marker(data)
        return
    with pytest.raises(LayoutInvalid):
        layout.check_marker(data)


@pytest.mark.parametrize("digest", [A, B])
def test_a_blobs_path_leads_back_to_it(digest: Digest) -> None:
    assert digest_at(layout.blob_path(digest)) == digest


@pytest.mark.parametrize(
    "path", ["blobs/sha256/1", f"blobs/sha512/{A.hex}", f"x/blobs/sha256/{A.hex}", f"blobs/sha256/{A.hex}/x"]
)
def test_other_paths_are_no_blobs(path: str) -> None:
    assert digest_at(path) is None


@pytest.mark.parametrize(
    ("annotations", "meant"),
    [
        ({}, ("", "")),
        ({layout.REF_NAME: "latest"}, ("", "latest")),  # skopeo, oras
        ({layout.REF_NAME: "team/app:v1"}, ("team/app", "v1")),
        ({layout.REF_NAME: f"team/app@{A}"}, ("team/app", "")),
        ({layout.REF_NAME: "team/app"}, ("team/app", "latest")),
        # buildx and ctr say both.
        ({layout.REF_NAME: "3", layout.WHOLE_NAME: "docker.io/library/x:3"}, ("docker.io/library/x", "3")),
        ({layout.REF_NAME: "127.0.0.1:5000/team/app:v1"}, ("127.0.0.1:5000/team/app", "v1")),
    ],
)
def test_a_name_is_understood_as_each_tool_writes_it(
    annotations: dict[str, str], meant: tuple[str, str]
) -> None:
    assert named(annotations) == meant


@pytest.mark.parametrize(
    ("repository", "to", "place"),
    [
        ("team/app", "", "team/app"),
        ("team/app", "mirror", "mirror/team/app"),
        ("docker.io/library/x", "mirror", "mirror/library/x"),
        ("127.0.0.1:5000/app", "a/b", "a/b/app"),
        ("localhost/app", "a", "a/app"),
        ("a.b", "mirror", "mirror/a.b"),
        ("", "team/app", "team/app"),
    ],
)
def test_a_repository_goes_below_what_is_named(repository: str, to: str, place: str) -> None:
    assert placed(Root(A, OCI_MANIFEST, 1, repository), to) == place


def test_an_image_of_no_repository_needs_one() -> None:
    with pytest.raises(LayoutInvalid, match="name one by --to"):
        placed(Root(A, OCI_MANIFEST, 1, "", "latest"), "")
