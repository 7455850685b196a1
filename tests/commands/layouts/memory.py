"""A registry in memory, as the commands see the daemon's: it takes what a registry takes, and may fail."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from cacheproxy.commands.daemon import Refused
from cacheproxy.commands.layouts.door import Door, Gone, Meaning, Pulled
from cacheproxy.core import manifest as manifests
from cacheproxy.core.digest import Digest
from cacheproxy.core.media import OCI_INDEX, OCI_MANIFEST

LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class Kept:
    """A repository."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


class Memory(Door):
    def __init__(self) -> None:
        self.kept: defaultdict[str, Kept] = defaultdict(Kept)
        self.upstreams = ("docker-hub",)
        self.changes_left = 1 << 30
        """Then it fails."""

    def meaning(self, name: str) -> Meaning:
        cached = name.partition("/")[0] in self.upstreams
        return Meaning(name if name in self.kept else None, None if cached else name)

    def manifest(self, repository: str, reference: Digest | str) -> Pulled | None:
        kept = self.kept[repository]
        digest = reference if isinstance(reference, Digest) else kept.tags.get(reference)
        if digest is None or digest not in kept.manifests:
            return None
        return Pulled(digest, *kept.manifests[digest])

    def means(self, repository: str, reference: Digest | str) -> str | None:
        pulled = self.manifest(repository, reference)
        return None if pulled is None else pulled.digest

    def has(self, repository: str, digest: Digest) -> bool:
        return digest in self.kept[repository].blobs

    def blob(self, repository: str, digest: Digest, size: int) -> Iterator[bytes]:
        if not self.has(repository, digest):
            raise Gone(digest)
        yield self.kept[repository].blobs[digest]

    def mount(self, repository: str, digest: Digest) -> bool:
        self._changes()
        found = [kept.blobs[digest] for kept in self.kept.values() if digest in kept.blobs]
        if found:
            self.kept[repository].blobs[digest] = found[0]
        return bool(found)

    def push(self, repository: str, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        self._changes()
        data = b"".join(chunks)
        if len(data) != size or Digest.of(data, digest.algorithm) != digest:
            raise Refused(f"DIGEST_INVALID: {digest}")
        self.kept[repository].blobs[digest] = data

    def put(self, repository: str, reference: Digest | str, body: bytes, media_type: str) -> None:
        self._changes()
        kept, digest = self.kept[repository], Digest.of(body)
        if isinstance(reference, Digest):
            digest = Digest.of(body, reference.algorithm)
            assert digest == reference
        else:
            kept.tags[reference] = digest
        for blob in manifests.parse(body, media_type).blobs:
            assert manifests.foreign(blob) or blob.digest in kept.blobs, "a layer comes before its image"
        kept.manifests[digest] = media_type, body

    def referrers(self, repository: str, subject: Digest) -> Iterator[Digest]:
        for digest, (media_type, body) in self.kept[repository].manifests.items():
            parsed = manifests.parse(body, media_type)
            if parsed.subject is not None and parsed.subject.digest == subject:
                yield digest

    def tags(self, repository: str, prefix: str) -> Iterator[str]:
        yield from sorted(tag for tag in self.kept[repository].tags if tag.startswith(prefix))

    def _changes(self) -> None:
        if not self.changes_left:
            raise Refused("it is broken")
        self.changes_left -= 1

    # What tests fill it with.

    def add(self, repository: str, data: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(data, algorithm)
        self.kept[repository].blobs[digest] = data
        return digest

    def image(
        self, repository: str, *layers: bytes, tag: str = "", subject: Digest | None = None, **more: object
    ) -> Digest:
        kept = self.kept[repository]
        for layer in (b"{}", *layers):
            self.add(repository, layer)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(b"{}"),
            "layers": [described(layer) for layer in layers],
            **more,
        }
        if subject is not None:
            media_type, body = kept.manifests[subject]
            document["subject"] = {"mediaType": media_type, "digest": subject, "size": len(body)}
        return self.keep(repository, OCI_MANIFEST, document, tag)

    def index(self, repository: str, *children: Digest, tag: str = "", **more: object) -> Digest:
        kept = self.kept[repository]
        listed = [
            {"mediaType": kept.manifests[child][0], "digest": child, "size": len(kept.manifests[child][1])}
            for child in children
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, **more}
        return self.keep(repository, OCI_INDEX, document, tag)

    def keep(self, repository: str, media_type: str, document: object, tag: str = "") -> Digest:
        body = json.dumps(document).encode()
        digest = Digest.of(body)
        self.kept[repository].manifests[digest] = media_type, body
        if tag:
            self.kept[repository].tags[tag] = digest
        return digest


def described(data: bytes, media_type: str = LAYER) -> dict[str, object]:
    return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data)}
