"""A store of cached images as months of pulls would leave it, for the line that starts over one.

`python -m bench.store CONFIG IMAGES` fills the database that a configuration names, through the store's own
API. The files of the blobs are left out, for nobody asks for them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import trio

from cacheproxy.config import load
from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import ParsedManifest, parse
from cacheproxy.store.records import Records
from cacheproxy.wiring import open_database

OCI = "application/vnd.oci.image"
PER_REPOSITORY = 100
"""Images of one repository: they share their three lowest layers."""
LAYER = 1 << 20


def _descriptor(kind: str, size: int, *named: object) -> dict[str, object]:
    digest = "sha256:" + hashlib.sha256(repr(named).encode()).hexdigest()
    return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": size}


def manifest(repository: int, tag: int) -> bytes:
    """A config and five layers, two of them of this image alone."""
    below = [_descriptor("layer.v1.tar+gzip", LAYER, repository, level) for level in range(3)]
    own = [_descriptor("layer.v1.tar+gzip", LAYER, repository, tag, level) for level in range(3, 5)]
    config = _descriptor("config.v1+json", 4096, repository, tag)
    body = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": config,
        "layers": below + own,
    }
    return json.dumps(body).encode()


def images(count: int) -> Iterator[tuple[str, str, bytes, ParsedManifest]]:
    """Repository, tag, manifest as bytes and as parsed."""
    for number in range(count):
        repository, tag = divmod(number, PER_REPOSITORY)
        body = manifest(repository, tag)
        yield f"docker.io/library/image-{repository}", f"v{tag}", body, parse(body, f"{OCI}.manifest.v1+json")


async def _record(records: Records, image: tuple[str, str, bytes, ParsedManifest]) -> None:
    repository, tag, body, parsed = image
    now = time.time()
    await records.record_image(repository, "docker.io", Digest.of(body), body, parsed, now, tag)
    for blob in parsed.blobs:
        location = f"blobs/{blob.digest.algorithm}/{blob.digest.hex[:2]}/{blob.digest.hex}.1"
        await records.record_blob(blob.digest, blob.size, location, 1, now)


async def fill(config: Path, count: int) -> None:
    storage = load(config).storage
    storage.state.mkdir(exist_ok=True)
    async with open_database(storage) as database:
        records = Records(database)
        waiting = images(count)
        # Side by side, so that they share the database's commits.
        while batch := list(islice(waiting, 256)):
            async with trio.open_nursery() as nursery:
                for image in batch:
                    nursery.start_soon(_record, records, image)


if __name__ == "__main__":
    trio.run(partial(fill, Path(sys.argv[1]), int(sys.argv[2])))
