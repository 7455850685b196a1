from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from cacheproxy.core.blob import Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.errors import BlobMissing, StoreSuspect, StoreUnreachable
from cacheproxy.store.objects import ObjectContent, open_objects

DATA = b"some bytes of a layer"
DIGEST = Digest.of(DATA)


class Failing(Bucket):
    """Takes nothing."""

    def put(self, key: str, size: int, chunks: object) -> None:
        raise StoreUnreachable("down")


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), "memory://test")


@pytest.fixture
async def content(bucket: Bucket, tmp_path: Path) -> AsyncIterator[ObjectContent]:
    async with open_objects(bucket, tmp_path) as content:
        yield content


def committed(content: ObjectContent, data: bytes = DATA, digest: Digest = DIGEST) -> str:
    partial = content.partial(digest, len(data))
    try:
        partial.write(0, [data])
        return content.commit(partial).path
    finally:
        partial.close()


async def test_what_is_stored_has_the_digest_of_its_name(content: ObjectContent, bucket: Bucket) -> None:
    piece = bucket.get(committed(content), 0, len(DATA))
    assert piece is not None
    assert Digest.of(bytes(piece.data)) == DIGEST


async def test_commit_leaves_no_partial_file(content: ObjectContent) -> None:
    committed(content)
    assert list(content.partials()) == []


async def test_file_that_changed_since_it_was_proven_is_not_kept(
    content: ObjectContent, bucket: Bucket
) -> None:
    with pytest.raises(StoreSuspect):
        committed(content, b"x" * len(DATA))
    assert list(obstore.list(bucket._store)) == []


async def test_upload_that_fails_leaves_the_file_to_go_on_from(tmp_path: Path) -> None:
    async with open_objects(Failing(MemoryStore(), "memory://test"), tmp_path) as content:
        partial = content.partial(DIGEST, len(DATA))
        partial.write(0, [DATA])
        partial.checkpoint([(0, len(DATA))])
        with pytest.raises(StoreUnreachable):
            content.commit(partial)
        partial.close()
        again = content.partial(DIGEST, len(DATA))
        assert again.read(0, len(DATA)) == DATA
        again.close()


async def test_object_that_vanished_is_missing_when_its_first_byte_is_asked_for(
    content: ObjectContent, bucket: Bucket
) -> None:
    location = committed(content)
    view = content.open(DIGEST, location, len(DATA))
    bucket.delete(location)
    with pytest.raises(BlobMissing):
        await view.available(0, Span(0, len(DATA), False))
    view.close()


async def test_capacity_has_no_end(content: ObjectContent) -> None:
    free, total = content.capacity()
    assert free == total > 1 << 60


async def test_a_store_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    class Away(Bucket):
        def size(self, key: str) -> int | None:
            raise StoreUnreachable("down")

    async with open_objects(Away(MemoryStore(), "memory://test"), tmp_path) as content:
        with pytest.raises(StoreUnreachable):
            content.check()
