from __future__ import annotations

import json

import pytest

from cacheproxy.core import tree as trees
from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import ManifestInvalid
from cacheproxy.core.media import OCI_INDEX, OCI_MANIFEST
from cacheproxy.core.tree import Tree

LAYER = "application/vnd.oci.image.layer.v1.tar"


def described(digest: Digest, media_type: str, size: int = 1, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def index(*children: dict[str, object], note: str = "") -> tuple[Digest, bytes]:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    body = json.dumps({**document, "annotations": {"note": note}}).encode()
    return Digest.of(body), body


def image(*layers: dict[str, object]) -> tuple[Digest, bytes]:
    config = described(Digest.of(b"{}"), "application/vnd.oci.image.config.v1+json", 2)
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    body = json.dumps(document).encode()
    return Digest.of(body), body


def test_children_that_are_not_known_are_asked_for_once() -> None:
    tree, (child, body) = Tree(), image()
    parent = index(described(child, OCI_MANIFEST), described(child, OCI_MANIFEST))
    assert tree.add(*parent, OCI_INDEX) == [(child, OCI_MANIFEST)]
    assert tree.add(child, body, OCI_MANIFEST) == []
    assert tree.add(*parent, OCI_INDEX) == []


def test_what_is_below_comes_first_in_a_diamond_of_any_depth() -> None:
    tree, (below, body) = Tree(), image()
    tree.add(below, body, OCI_MANIFEST)
    levels = [{below}]
    for depth in range(40):
        children = [described(child, OCI_INDEX if depth else OCI_MANIFEST) for child in levels[-1]]
        made = [index(*children, note=f"{depth} {side}") for side in "ab"]
        for digest, text in made:
            tree.add(digest, text, OCI_INDEX)
        levels.append({digest for digest, _ in made})
    ordered = tree.below(levels[-1])
    assert len(ordered) == 81
    for digest in ordered:
        assert all(ordered.index(child) < ordered.index(digest) for child in tree.nodes[digest].children)


def test_a_manifest_is_its_digests() -> None:
    with pytest.raises(ManifestInvalid, match="are not its own"):
        Tree().add(Digest.of(b"other"), image()[1], OCI_MANIFEST)


def test_what_an_index_names_beside_images_is_a_blob() -> None:
    tree, layer = Tree(), Digest.of(b"cache")
    assert tree.add(*index(described(layer, LAYER)), OCI_INDEX) == []
    assert tree.blobs[layer].needed


def test_a_layer_is_needed_where_one_image_says_so() -> None:
    tree, layer = Tree(), Digest.of(b"layer")
    tree.add(*image(described(layer, LAYER, urls=["https://elsewhere.example/"])), OCI_MANIFEST)
    assert not tree.blobs[layer].needed
    tree.add(*image(described(layer, LAYER)), OCI_MANIFEST)
    assert tree.blobs[layer].needed


def test_a_blob_has_one_size() -> None:
    tree, layer = Tree(), Digest.of(b"layer")
    tree.add(*image(described(layer, LAYER, 1)), OCI_MANIFEST)
    with pytest.raises(ManifestInvalid, match="disagree"):
        tree.add(*image(described(layer, LAYER, 2)), OCI_MANIFEST)


def test_a_tree_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST", 3)
    layers = [described(Digest.of(bytes([number])), LAYER) for number in range(3)]
    with pytest.raises(ManifestInvalid, match="more than"):
        Tree().add(*image(*layers), OCI_MANIFEST)
