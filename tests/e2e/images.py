"""What is pulled: Debian in four layers, as OCI and as Docker schema 2, and an index over two platforms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.programs import TOOLS, installed, packaged, run
from tests.e2e.servers import Distribution, distribution

REPOSITORY = "library/debian"
LAYOUT = TOOLS / "image"


@dataclass(frozen=True)
class Image:
    """What a tag leads to."""

    tag: str
    digest: str
    """Of what the tag names: an index's own digest."""
    manifest: str
    """Of the manifest for this machine's platform."""
    config: str
    layers: tuple[str, ...]

    @property
    def blobs(self) -> frozenset[str]:
        return frozenset((self.config, *self.layers))


@dataclass(frozen=True)
class Library:
    store: Path
    images: dict[str, Image]
    """By tag: "oci", "docker" and "multi"."""
    other_platform: frozenset[str]
    """Layers of the index's second platform."""


def fill(folder: Path) -> Library:
    """Push everything into a registry's store, which any number of registries may serve afterwards."""
    store = folder / "store"
    with distribution(store, folder) as registry:
        _push(registry, folder)
        oci, docker, arm64 = (_image(registry, folder, tag) for tag in ("oci", "docker", "arm64"))
        index = _manifest(registry, folder, "multi")
        multi = Image("multi", _digest(registry, folder, "multi"), oci.manifest, oci.config, oci.layers)
    assert [child["platform"]["architecture"] for child in index["manifests"]] == ["amd64", "arm64"]
    assert len(oci.layers) > 3, "a real image has several layers"
    return Library(store, {image.tag: image for image in (oci, docker, multi)}, frozenset(arm64.layers))


def _push(registry: Distribution, folder: Path) -> None:
    name = f"{registry.host}/{REPOSITORY}"
    copy = [packaged("skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
    run([*copy, f"oci:{LAYOUT}:amd64", f"docker://{name}:oci"], folder)
    run([*copy, "--format", "v2s2", f"oci:{LAYOUT}:amd64", f"docker://{name}:docker"], folder)
    run([*copy, f"oci:{LAYOUT}:arm64", f"docker://{name}:arm64"], folder)
    children = ["--manifest", f"{name}:oci", "--manifest", f"{name}:arm64"]
    run([installed("crane"), "index", "append", "--insecure", *children, "--tag", f"{name}:multi"], folder)


def _image(registry: Distribution, folder: Path, tag: str) -> Image:
    manifest, digest = _manifest(registry, folder, tag), _digest(registry, folder, tag)
    layers = tuple(layer["digest"] for layer in manifest["layers"])
    return Image(tag, digest, digest, manifest["config"]["digest"], layers)


def _manifest(registry: Distribution, folder: Path, tag: str) -> dict[str, Any]:
    told = run([installed("crane"), "manifest", "--insecure", f"{registry.host}/{REPOSITORY}:{tag}"], folder)
    manifest: dict[str, Any] = json.loads(told)
    return manifest


def _digest(registry: Distribution, folder: Path, tag: str) -> str:
    return run(
        [installed("crane"), "digest", "--insecure", f"{registry.host}/{REPOSITORY}:{tag}"], folder
    ).strip()
