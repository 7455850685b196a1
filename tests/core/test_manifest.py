"""Manifests: what is read of them, and what is refused."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core import media
from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import (
    MAX_DEPTH,
    MAX_DESCRIPTORS,
    MAX_MANIFEST,
    MAX_TOKENS,
    ManifestInvalid,
    parse,
)

CONFIG = Digest.of(b"config")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(data: bytes, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def image(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(b"config", "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(b"one"), descriptor(b"two")],
        **more,
    }


def index(**more: Any) -> dict[str, Any]:
    child = descriptor(b"child", media.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    return {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [child], **more}


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def refusal(body: bytes, media_type: str | None = None) -> str:
    with pytest.raises(ManifestInvalid) as caught:
        parse(body, media_type)
    return str(caught.value)


# What is read


def test_an_image_names_its_config_and_layers() -> None:
    parsed = parse(encode(image(annotations={"a": "b"})), media.OCI_MANIFEST)
    assert parsed.media_type == media.OCI_MANIFEST
    assert parsed.config is not None
    assert parsed.config.digest == CONFIG
    assert [(layer.digest, layer.size) for layer in parsed.layers] == [
        (Digest.of(b"one"), 3),
        (Digest.of(b"two"), 3),
    ]
    assert parsed.blobs == (parsed.config, *parsed.layers)
    assert parsed.manifests == ()
    assert parsed.annotations == {"a": "b"}


def test_an_index_names_its_manifests_with_their_platforms() -> None:
    parsed = parse(encode(index()), media.OCI_INDEX)
    (child,) = parsed.manifests
    assert child.digest == Digest.of(b"child")
    assert child.platform == {"os": "linux", "architecture": "amd64"}
    assert parsed.blobs == ()
    assert parsed.config is None


def test_dockers_own_types_are_read_alike() -> None:
    assert parse(encode(image(mediaType=media.DOCKER_MANIFEST))).layers
    assert parse(encode(index(mediaType=media.DOCKER_LIST))).manifests


@pytest.mark.parametrize("media_type", [media.ORAS_ARTIFACT, media.OCI_ARTIFACT])
def test_an_artifact_manifests_blobs_are_its_layers(media_type: str) -> None:
    body = encode(
        {
            "mediaType": media_type,
            "artifactType": "application/x.sbom",
            "blobs": [descriptor(b"sbom")],
            "subject": descriptor(b"image", media.OCI_MANIFEST),
        }
    )
    parsed = parse(body, media_type)
    assert [blob.digest for blob in parsed.blobs] == [Digest.of(b"sbom")]
    assert parsed.artifact_type == "application/x.sbom"
    assert parsed.subject is not None
    assert parsed.subject.digest == Digest.of(b"image")


def test_an_images_artifact_type_is_its_configs_media_type_where_it_has_none() -> None:
    assert parse(encode(image())).artifact_type == "application/vnd.oci.image.config.v1+json"
    assert parse(encode(image(artifactType="application/x.sig"))).artifact_type == "application/x.sig"
    assert parse(encode(index())).artifact_type is None


def test_a_descriptors_other_fields_are_kept() -> None:
    layer = descriptor(b"one", urls=["https://example.com/one"], annotations={"k": "v"}, artifactType="x/y")
    (parsed,) = parse(encode(image(layers=[layer]))).layers
    assert parsed.urls == ("https://example.com/one",)
    assert parsed.annotations == {"k": "v"}
    assert parsed.artifact_type == "x/y"


@pytest.mark.parametrize("field", ["layers", "annotations", "subject"])
def test_gos_null_is_an_absent_field(field: str) -> None:
    assert parse(encode(image(**{field: None}))) == parse(encode(without(image(), field)))


def test_an_empty_index_written_by_go_is_read() -> None:
    assert parse(encode(index(manifests=None)), media.OCI_INDEX).manifests == ()


def test_unknown_fields_are_let_be() -> None:
    assert parse(encode(image(**{"x-custom": {"deep": [1, {"a": None}]}}))).layers


def test_sha512_is_read() -> None:
    layer = {"mediaType": LAYER, "digest": str(Digest.of(b"x", "sha512")), "size": 1}
    assert parse(encode(image(layers=[layer]))).layers[0].digest.algorithm == "sha512"


# Which type it is


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "text/plain", "application/octet-stream", "Text/Plain; charset=utf-8"],
)
def test_a_content_type_that_says_nothing_leaves_it_to_the_body(content_type: str | None) -> None:
    assert parse(encode(index()), content_type).media_type == media.OCI_INDEX
    assert parse(encode(without(index(), "mediaType")), content_type).media_type == media.OCI_INDEX
    assert parse(encode(without(image(), "mediaType")), content_type).media_type == media.OCI_MANIFEST


def test_the_content_type_decides_where_the_body_is_silent() -> None:
    body = encode(without(image(), "mediaType"))
    assert parse(body, media.DOCKER_MANIFEST).media_type == media.DOCKER_MANIFEST


def test_parameters_and_case_of_a_content_type_do_not_matter() -> None:
    sent = "Application/VND.oci.image.manifest.v1+json ; charset=utf-8"
    assert parse(encode(image()), sent).media_type == media.OCI_MANIFEST


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        (image(), media.OCI_INDEX),
        (image(), media.DOCKER_MANIFEST),
        (index(), media.OCI_MANIFEST),
        (index(), "text/html"),
    ],
)
def test_a_content_type_that_contradicts_the_body_is_refused(document: object, content_type: str) -> None:
    assert "while its mediaType is" in refusal(encode(document), content_type)


@pytest.mark.parametrize("media_type", [media.OCI_MANIFEST, media.OCI_INDEX, media.ORAS_ARTIFACT, None])
@pytest.mark.parametrize(
    "document",
    [
        {**image(), **index()},
        {**index(), "layers": []},
        {**index(), "config": None},
        {**index(), "fsLayers": []},
        {**image(), "manifests": []},
        {**image(), "fsLayers": []},
        {**image(), "blobs": []},
        {"blobs": [], "manifests": []},
    ],
)
def test_a_document_that_is_two_things_is_refused(document: dict[str, Any], media_type: str | None) -> None:
    refusal(encode(without(document, "mediaType")), media_type)


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "mediatype", "Manifests", "CONFIG", "fslayers"])
def test_a_key_that_go_would_take_for_another_is_refused(key: str) -> None:
    assert "only in case" in refusal(encode(image(**{key: []})))


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, media.DOCKER_SCHEMA1_SIGNED),
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, "application/json"),
        ({"fsLayers": []}, None),
        (image(schemaVersion=1), None),
    ],
)
def test_schema_1_is_refused_by_name(document: object, content_type: str | None) -> None:
    assert "schema 1" in refusal(encode(document), content_type)


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        (image(mediaType="application/vnd.example+json"), None),
        (without(image(), "mediaType"), "text/html"),
        ({}, None),
        ({"schemaVersion": 2}, None),
        ({"blobs": []}, None),
    ],
)
def test_an_unknown_type_is_refused(document: object, content_type: str | None) -> None:
    assert "media type" in refusal(encode(document), content_type)


# What is not a manifest


@pytest.mark.parametrize(
    "document",
    [
        without(image(), "config"),
        image(config=None),
        without(index(), "manifests"),
        image(schemaVersion=3),
        image(schemaVersion="2"),
        image(layers={}),
        image(layers=[None]),
        image(layers=[{}]),
        image(layers=[{"mediaType": LAYER, "size": 1}]),
        image(layers=[{"mediaType": LAYER, "digest": str(CONFIG)}]),
        image(layers=[descriptor(b"x", size=-1)]),
        image(layers=[descriptor(b"x", size=1.0)]),
        image(layers=[descriptor(b"x", size=True)]),
        image(layers=[descriptor(b"x", size="1")]),
        image(layers=[descriptor(b"x", size=1 << 63)]),
        image(layers=[descriptor(b"x", size=10**400)]),
        image(layers=[descriptor(b"x", digest="sha256:../../../etc/passwd")]),
        image(layers=[descriptor(b"x", digest=str(CONFIG).upper())]),
        image(layers=[descriptor(b"x", digest=f"{CONFIG}\n")]),
        image(layers=[descriptor(b"x", digest=7)]),
        image(layers=[descriptor(b"x", annotations={"a": 1})]),
        image(annotations=[]),
        image(mediaType=7),
        [],
        "text",
        7,
        None,
    ],
)
def test_what_is_no_manifest_is_refused(document: object) -> None:
    refusal(encode(document))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>",
        b"{} {}",
        b"\xef\xbb\xbf" + encode(image()),
        encode(image()).decode().encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":01}',
        b'{"a":"\x00"}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1 /* no */}',
    ],
)
def test_what_is_not_json_by_the_letter_is_refused(body: bytes) -> None:
    assert "JSON" in refusal(body)


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ('"schemaVersion": 2', '"schemaVersion": 2, "schemaVersion": 2'),
        ('"layers": [', '"l\\u0061yers": [], "layers": ['),
        ('"size": 3', '"size": 3, "size": 4'),
        ('"x": {"a": 1}', '"x": {"a": 1, "a": 1}'),
        ('"y": [[{}]]', '"y": [[{"": 1, "": 2}]]'),
    ],
)
def test_a_key_that_comes_twice_is_refused_at_any_depth(once: str, twice: str) -> None:
    body = json.dumps(image(x={"a": 1}, y=[[{}]]))
    assert parse(body.encode()).layers
    assert body.count(once) >= 1
    assert "twice" in refusal(body.replace(once, twice, 1).encode())


@pytest.mark.parametrize("text", ['a": "b', '{"k": 1, "k": 2}', "\\", '\\"', "[[[{{{:,:,", '"', "\\\\"])
def test_what_stands_inside_a_string_is_no_structure(text: str) -> None:
    assert parse(encode(image(annotations={text: text}))).annotations == {text: text}


scalars = st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values)
def test_any_other_value_in_a_manifest_is_no_duplicate(value: object) -> None:
    assert parse(json.dumps(image(other=value), ensure_ascii=False).encode()).layers


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_as_such_and_no_other_way(body: bytes) -> None:
    refusal(body)


@given(st.integers(0, 2000), st.binary(max_size=3))
def test_a_damaged_manifest_is_read_or_refused(at: int, damage: bytes) -> None:
    body = encode(image())
    with contextlib.suppress(ManifestInvalid):
        parse(body[:at] + damage + body[at + len(damage) :])


# What is too much


def padded(size: int) -> bytes:
    body = encode(image(annotations={"x": ""}))
    return body.replace(b'{"x": ""}', b'{"x": "' + b"y" * (size - len(body)) + b'"}')


def test_a_manifest_of_the_largest_size_is_read_and_a_byte_more_is_not() -> None:
    assert len(padded(MAX_MANIFEST)) == MAX_MANIFEST == 4 * 1024 * 1024
    assert parse(padded(MAX_MANIFEST)).layers
    assert "larger than" in refusal(padded(MAX_MANIFEST + 1))


def test_nesting_has_a_limit() -> None:
    # The document itself is one level.
    assert parse(encode(image()).replace(b"{", b'{"x":' + nested(MAX_DEPTH - 1) + b",", 1)).layers
    assert "deeper" in refusal(encode(image()).replace(b"{", b'{"x":' + nested(MAX_DEPTH) + b",", 1))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_descriptors_have_a_limit() -> None:
    assert len(parse(encode(image(layers=[descriptor(b"x")] * MAX_DESCRIPTORS))).layers) == MAX_DESCRIPTORS
    assert "more than" in refusal(encode(image(layers=[descriptor(b"x")] * (MAX_DESCRIPTORS + 1))))


def test_a_thousand_richly_annotated_layers_are_within_the_tokens() -> None:
    annotations = {f"annotation-{i}": "value" for i in range(12)}
    layers = [descriptor(b"x", annotations=annotations)] * MAX_DESCRIPTORS
    assert len(parse(encode(image(layers=layers))).layers) == MAX_DESCRIPTORS


FULL = MAX_MANIFEST


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * ((FULL - 4) // 3) + b"[]]",
        b"[" * FULL,
        b"[" + b"{}," * ((FULL - 4) // 3) + b"{}]",
        b"[" + b"1," * ((FULL - 3) // 2) + b"1]",
        b'["",' * (FULL // 4),
        b'"' * FULL,
        b'\\"' * (FULL // 2),
        b'"\\\\",' * (FULL // 5),
        b":" * FULL,
        b"9" * FULL,
        b'{"a":' + b"9" * (FULL - 6) + b"}",
        b'{"a":0.' + b"9" * (FULL - 8) + b"}",
        b'{"a":"' + b'\\"' * ((FULL - 8) // 2) + b'"}',
        b'{"a":"' + b"\\u00e9" * ((FULL - 8) // 6) + b'"}',
        b"{" + b",".join(b'"%d":1' % i for i in range(MAX_TOKENS)) + b"}",
        b" " * FULL,
        b"\xff" * FULL,
    ],
    ids=lambda body: f"{body[:8]!r}",
)
def test_a_hostile_body_costs_little(body: bytes) -> None:
    assert len(body) <= FULL
    tracemalloc.start()
    refusal(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    started = time.process_time()
    refusal(body)
    assert time.process_time() - started < 0.5  # a tenth of it on an idle machine


def test_an_ordinary_manifest_takes_well_under_a_millisecond() -> None:
    body = encode(image(layers=[descriptor(b"%d" % i) for i in range(8)]))
    started = time.process_time()
    for _ in range(200):
        parse(body, media.OCI_MANIFEST)
    assert (time.process_time() - started) / 200 < 0.0005  # 40 µs on an idle machine
