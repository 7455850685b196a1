"""Media types of manifests: what we ask upstreams for, and what is what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
"""Of image-spec 1.1's release candidates; withdrawn, still in registries."""
ORAS_ARTIFACT = "application/vnd.cncf.oras.artifact.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

Kind = Literal["index", "image", "artifact"]

KINDS: Mapping[str, Kind] = {
    OCI_INDEX: "index",
    DOCKER_LIST: "index",
    OCI_MANIFEST: "image",
    DOCKER_MANIFEST: "image",
    OCI_ARTIFACT: "artifact",
    ORAS_ARTIFACT: "artifact",
}
SCHEMA1_TYPES = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
"""Docker's first schema: its digest is not over the bytes that are sent. Read only to be refused by name."""

ACCEPT = ", ".join(KINDS)
"""Sent with each manifest request to an upstream: what a client accepts never changes what is fetched."""
