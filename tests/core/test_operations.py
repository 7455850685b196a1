"""Paths and operations: one table, both ways."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.operations import (
    Blob,
    Catalog,
    Manifest,
    Operation,
    Ping,
    Referrers,
    Tags,
    Upload,
    Uploads,
    parse,
    path,
)
from tests.core.names import components, digests, repositories, requested, tags

D = Digest.of(b"")
SESSION = "0123456789abcdef" * 2

operations: st.SearchStrategy[Operation] = st.one_of(
    st.just(Ping()),
    st.just(Catalog()),
    st.builds(Manifest, requested, st.one_of(tags, digests)),
    st.builds(Blob, requested, digests),
    st.builds(Tags, requested),
    st.builds(Referrers, requested, digests),
    st.builds(Uploads, requested),
    st.builds(Upload, requested, st.just(SESSION)),
)


@given(operations.filter(lambda operation: len(getattr(operation, "name", "")) <= 255))
def test_an_operation_comes_back_from_its_path(operation: Operation) -> None:
    assert parse(path(operation)) == operation


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("/v2/_catalog", Catalog()),
        ("/v2/a/manifests/latest", Manifest("a", "latest")),
        ("/v2/library/alpine/manifests/3.20", Manifest("library/alpine", "3.20")),
        (f"/v2/a/b/c/d/manifests/{D}", Manifest("a/b/c/d", D)),
        (f"/v2/a/blobs/{D}", Blob("a", D)),
        ("/v2/a/blobs/uploads/", Uploads("a")),
        ("/v2/blobs/uploads/blobs/uploads/", Uploads("blobs/uploads")),
        (f"/v2/a/b/blobs/uploads/{SESSION}", Upload("a/b", SESSION)),
        (f"/v2/blobs/blobs/uploads/{SESSION}", Upload("blobs", SESSION)),
        (f"/v2/{'a' * 255}/blobs/uploads/{SESSION}", Upload("a" * 255, SESSION)),
        ("/v2/a/tags/list", Tags("a")),
        (f"/v2/a/referrers/{D}", Referrers("a", D)),
        ("/v2/docker.io/library/alpine/manifests/latest", Manifest("docker.io/library/alpine", "latest")),
        ("/v2/localhost:5000/a/manifests/latest", Manifest("localhost:5000/a", "latest")),
        # Names made of the path's own words.
        ("/v2/manifests/manifests/manifests", Manifest("manifests", "manifests")),
        ("/v2/a/manifests/manifests/b", Manifest("a/manifests", "b")),
        ("/v2/a/tags/list/tags/list", Tags("a/tags/list")),
        ("/v2/v2/manifests/v2", Manifest("v2", "v2")),
        (f"/v2/a/v2/b/blobs/{D}", Blob("a/v2/b", D)),
        ("/v2/catalog/manifests/x", Manifest("catalog", "x")),
        # An encoded character that need not be.
        (f"/v2/a/blobs/{quote(D, safe='')}", Blob("a", D)),
        ("/v2/%61/manifests/%6catest", Manifest("a", "latest")),
    ],
)
def test_a_path_is_read(text: str, operation: Operation) -> None:
    assert parse(text) == operation


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("/docker.io/v2/", Ping()),
        ("/docker.io/v2", Ping()),
        ("/docker.io/v2/library/alpine/manifests/3", Manifest("docker.io/library/alpine", "3")),
        (f"/hub/v2/a/blobs/{D}", Blob("hub/a", D)),
        ("/hub/team/v2/a/tags/list", Tags("hub/team/a")),
        ("/localhost:5000/v2/a/tags/list", Tags("localhost:5000/a")),
        ("/hub/v2/a/v2/b/tags/list", Tags("hub/a/v2/b")),
    ],
)
def test_what_stands_before_v2_leads_the_name(text: str, operation: Operation) -> None:
    assert parse(text) == operation


@given(components(), repositories.filter(lambda name: name != "v2"), tags)
def test_the_two_ways_of_naming_a_prefix_are_one(prefix: str, name: str, tag: str) -> None:
    if prefix != "v2" and len(prefix) + len(name) < 255:
        inside = parse(f"/v2/{prefix}/{name}/manifests/{tag}")
        assert parse(f"/{prefix}/v2/{name}/manifests/{tag}") == inside


@pytest.mark.parametrize(
    "text",
    [
        "/v2/a%2fb/manifests/x",
        "/v2/a%2Fb/manifests/x",
        "/v2/%2F%2F..%2F..%2Fetc/manifests/x",
        "/v2/a%5cb/manifests/x",
        "/v2/a%00/manifests/x",
        "/v2/a%252fb/manifests/x",
        "/v2/../manifests/x",
        "/v2/a/../b/manifests/x",
        "/v2/a/%2e%2e/b/manifests/x",
        "/v2/a/.%2E/b/manifests/x",
        "/v2/a/./manifests/x",
        "/v2/a/manifests/..",
        "/v2/a//manifests/x",
        "//v2/a/manifests/x",
        "/v2/a\\b/manifests/x",
        "/v2/\u00e9/manifests/x",
        "/v2/%c3%a9/manifests/x",
        "/v2/a/manifests/x%0a",
        "/v2/a/manifests/x%",
        "/v2/a/manifests/x y",
        "/v2/A/manifests/x",
        "/v2/a_/manifests/x",
        "/v2/_catalog/manifests/x",
        "/v2/a/localhost:5000/manifests/x",
        "/A/v2/a/manifests/x",
        "/v2/" + "a" * 256 + "/manifests/x",
        "v2/a/manifests/x",
        "",
        "*",
        "http://example.com/v2/",
    ],
)
def test_a_malformed_path_is_400(text: str) -> None:
    with pytest.raises(OCIError) as caught:
        parse(text)
    assert (caught.value.status, caught.value.code) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("/v2/a/manifests/.hidden", "TAG_INVALID"),
        ("/v2/a/manifests/" + "t" * 129, "TAG_INVALID"),
        (f"/v2/a/manifests/{D[:-1]}", "DIGEST_INVALID"),
        ("/v2/a/blobs/uploads", "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", "DIGEST_INVALID"),
        (f"/v2/a/blobs/{D[:-1]}", "DIGEST_INVALID"),
        (f"/v2/a/blobs/{D}0", "DIGEST_INVALID"),
        (f"/v2/a/blobs/{D[:7]}{D.hex.upper()}", "DIGEST_INVALID"),
        ("/v2/a/referrers/latest", "DIGEST_INVALID"),
    ],
)
def test_a_malformed_reference_is_400(text: str, code: str) -> None:
    with pytest.raises(OCIError) as caught:
        parse(text)
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/v1/",
        "/v2x",
        "/v2/a",
        "/v2/a/",
        "/v2/a/b",
        "/v2/manifests/x",
        "/v2/a/manifests",
        "/v2/a/manifests/",
        "/v2/a/manifests/x/",
        "/v2/a/tags",
        "/v2/a/tags/all",
        "/v2/blobs/uploads/",
        f"/v2/a/uploads/{SESSION}",
        "/v2/_catalog/",
        "/hub/v2/_catalog",
        "/V2/a/manifests/x",
        "/metrics",
    ],
)
def test_what_is_no_operation_is_404(text: str) -> None:
    with pytest.raises(OCIError) as caught:
        parse(text)
    assert (caught.value.status, caught.value.code) == (404, "UNSUPPORTED")


@given(st.text("/v2a.:%2f_-manifeststagslist", max_size=40).map(lambda rest: f"/{rest}"))
def test_any_path_is_an_operation_or_refused(text: str) -> None:
    try:
        operation = parse(text)
    except OCIError as error:
        assert error.status in (400, 404)  # noqa: PT017 (both ends are the point)
    else:
        assert parse(path(operation)) == operation
