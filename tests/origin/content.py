"""What the origin holds: blobs (in memory, or in files for `sendfile`), manifests, tags, referrers."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

_OCI = (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
_DOCKER = (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
_BLOCK = 1 << 20


class Bytes:
    """A body in memory."""

    fd: int | None = None

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


class File:
    """A body in an unlinked file, whose descriptor goes straight to `sendfile`."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._descriptor = file.fileno()
        self.fd: int | None = self._descriptor
        self.size = size
        weakref.finalize(self, file.close)

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)


Body = Bytes | File


@dataclass(frozen=True, slots=True)
class Manifest:
    body: bytes
    media_type: str
    digest: str
    subject: str | None
    artifact_type: str | None
    annotations: dict[str, str]

    def descriptor(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.body),
        }
        if self.artifact_type:
            described["artifactType"] = self.artifact_type
        if self.annotations:
            described["annotations"] = self.annotations
        return described


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Content:
    """May be shared by several origins: a registry, its mirror, the storage it redirects to."""

    def __init__(self) -> None:
        self.blobs: dict[str, Body] = {}
        self.links: defaultdict[str, set[str]] = defaultdict(set)
        self.everywhere: set[str] = set()
        self.manifests: defaultdict[str, dict[str, Manifest]] = defaultdict(dict)
        self.tags: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def add_blob(self, data: bytes, repo: str | None = None) -> str:
        """A blob of one repository; of every repository when none is named."""
        return self._keep(sha256(data), Bytes(data), repo)

    def add_pattern_blob(self, size: int, seed: object = 0, repo: str | None = None) -> str:
        """`size` bytes that follow from `seed`; no two blocks are alike, so that a wrong offset shows."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 (its descriptor lives as long as the content)
        digest = hashlib.sha256()
        for start in range(0, size, _BLOCK):
            block = random.Random(f"{seed}:{start}").randbytes(min(_BLOCK, size - start))
            digest.update(block)
            file.write(block)
        file.flush()
        return self._keep("sha256:" + digest.hexdigest(), File(file, size), repo)

    def blob(self, repo: str, digest: str) -> Body | None:
        there = digest in self.everywhere or digest in self.links[repo]
        return self.blobs.get(digest) if there else None

    def add_manifest(self, repo: str, body: bytes, media_type: str, tag: str | None = None) -> str:
        """Any bytes at all; what of them is JSON is read for the referrers list."""
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = {}
        fields = parsed if isinstance(parsed, dict) else {}
        digest = sha256(body)
        self.manifests[repo][digest] = Manifest(
            body,
            media_type,
            digest,
            (fields.get("subject") or {}).get("digest"),
            fields.get("artifactType") or (fields.get("config") or {}).get("mediaType"),
            fields.get("annotations") or {},
        )
        if tag is not None:
            self.tags[repo][tag] = digest
        return digest

    def add_image(
        self,
        repo: str,
        tag: str | None = None,
        layers: Sequence[bytes | str] = (b"layer",),
        config: bytes = b"{}",
        docker: bool = False,
    ) -> str:
        """An image whose layers are bytes, or digests of blobs added before."""
        types = _DOCKER if docker else _OCI
        body = {
            "schemaVersion": 2,
            "mediaType": types[0],
            "config": self._described(repo, config, types[1]),
            "layers": [self._described(repo, layer, types[2]) for layer in layers],
        }
        return self.add_manifest(repo, as_json(body), types[0], tag)

    def add_index(
        self,
        repo: str,
        tag: str | None,
        digests: Iterable[str],
        platforms: Sequence[str] = (),
        docker: bool = False,
    ) -> str:
        """An index over manifests of `repo`; `platforms` ("linux/arm64") go with them in order."""
        children = [self.manifests[repo][digest].descriptor() for digest in digests]
        for child, platform in zip(children, platforms, strict=False):
            system, _, architecture = platform.partition("/")
            child["platform"] = {"os": system, "architecture": architecture}
        media_type = DOCKER_LIST if docker else OCI_INDEX
        body = {"schemaVersion": 2, "mediaType": media_type, "manifests": children}
        return self.add_manifest(repo, as_json(body), media_type, tag)

    def add_referrer(
        self,
        repo: str,
        subject: str,
        artifact_type: str,
        data: bytes = b"{}",
        annotations: dict[str, str] | None = None,
    ) -> str:
        body = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": self._described(repo, b"{}", OCI_EMPTY),
            "layers": [self._described(repo, data, artifact_type)],
            "subject": self.manifests[repo][subject].descriptor(),
            "annotations": annotations or {},
        }
        return self.add_manifest(repo, as_json(body), OCI_MANIFEST)

    def manifest(self, repo: str, reference: str) -> Manifest | None:
        known = self.manifests[repo]
        found = known.get(self.tags[repo].get(reference, reference))
        if found is None and reference.startswith("sha256-"):
            return self._fallback(repo, reference)
        return found

    def referrers(self, repo: str, subject: str, artifact_type: str | None = None) -> bytes:
        """An index of what names `subject`, as the referrers API answers it."""
        found = [
            manifest.descriptor()
            for manifest in self.manifests[repo].values()
            if manifest.subject == subject and artifact_type in {None, manifest.artifact_type}
        ]
        return as_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})

    def _fallback(self, repo: str, tag: str) -> Manifest | None:
        """The referrers tag schema: what clients keep up on a registry without the API."""
        subject = tag.replace("-", ":", 1)
        if not any(manifest.subject == subject for manifest in self.manifests[repo].values()):
            return None
        body = self.referrers(repo, subject)
        return Manifest(body, OCI_INDEX, sha256(body), None, None, {})

    def _described(self, repo: str, blob: bytes | str, media_type: str) -> dict[str, Any]:
        digest = blob if isinstance(blob, str) else self.add_blob(blob, repo)
        self.links[repo].add(digest)
        return {"mediaType": media_type, "digest": digest, "size": self.blobs[digest].size}

    def _keep(self, digest: str, body: Body, repo: str | None) -> str:
        self.blobs[digest] = body
        if repo is None:
            self.everywhere.add(digest)
        else:
            self.links[repo].add(digest)
        return digest
