"""Small images, and how they come into the rows."""

from __future__ import annotations

import json
from typing import Any

from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.store.records import Records

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"

REPOSITORY = "docker-hub/library/alpine"
CONFIG_BYTES, LAYER_BYTES = b"{}", b"a layer"
CONFIG_DIGEST, LAYER_DIGEST = Digest.of(CONFIG_BYTES), Digest.of(LAYER_BYTES)
CHILD = Digest.of(b"a child that is not here")


def descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def image(
    *,
    note: str = "",
    size: int = len(LAYER_BYTES),
    subject: Digest | None = None,
    artifact: str | None = None,
) -> bytes:
    """A manifest of one layer, as bytes."""
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(CONFIG, CONFIG_DIGEST, len(CONFIG_BYTES)),
        "layers": [descriptor(LAYER, LAYER_DIGEST, size)],
        "annotations": {"note": note},
    }
    if subject is not None:
        manifest["subject"] = descriptor(IMAGE, subject, 100)
    if artifact is not None:
        manifest["artifactType"] = artifact
    return json.dumps(manifest).encode()


def index(*children: Digest) -> bytes:
    manifest = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(IMAGE, child, 100) for child in children],
    }
    return json.dumps(manifest).encode()


async def record(
    records: Records, body: bytes, tag: str | None = None, *, repository: str = REPOSITORY, now: float = 100.0
) -> Digest:
    digest = Digest.of(body)
    parsed = manifests.parse(body, None)
    await records.record_image(repository, repository.partition("/")[0], digest, body, parsed, now, tag)
    return digest
