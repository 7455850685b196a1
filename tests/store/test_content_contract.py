"""What every content store does, whichever it is (see conftest.CONTENTS)."""

from __future__ import annotations

import os
import time

import pytest

from cacheproxy.core.blob import BlobView, Span
from cacheproxy.core.digest import Digest
from cacheproxy.store.content import Content
from cacheproxy.store.disk import Location
from cacheproxy.store.errors import BlobDamaged, BlobMissing
from cacheproxy.store.uploads import Received, UploadFiles

DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)


def stored(content: Content, data: bytes = DATA, digest: Digest | None = None) -> Location:
    """Bring the bytes in, as a fill does."""
    partial = content.partial(digest or Digest.of(data), len(data))
    partial.write(0, [data])
    location = content.commit(partial)
    partial.close()
    return location


async def proved(content: Content, digest: Digest, location: str, size: int) -> None:
    """Raises BlobMissing, now or when the first byte is asked for, if nothing of the kind is there."""
    view = content.open(digest, location, size)
    try:
        await view.available(0, Span(0, size, False))
    finally:
        view.close()


async def sent(view: BlobView, span: Span) -> bytes:
    """What the edge would send for the span."""
    got = b""
    while len(got) < span.length:
        at = span.start + len(got)
        count = await view.available(at, span)
        assert 1 <= count <= span.stop - at
        fd = view.fileno()
        got += await view.read(at, count) if fd is None else os.pread(fd, count, at)
    return got


async def test_committed_blob_is_read_back_whole(content: Content) -> None:
    view = content.open(DIGEST, stored(content).path, len(DATA))
    assert (view.digest, view.size) == (DIGEST, len(DATA))
    assert await sent(view, Span(0, len(DATA), False)) == DATA
    view.close()


async def test_committed_blob_is_read_in_parts(content: Content) -> None:
    view = content.open(DIGEST, stored(content).path, len(DATA))
    assert await sent(view, Span(100, 228, True)) == DATA[100:228]
    assert await view.read(len(DATA) - 3, 100) == DATA[-3:]
    view.close()


async def test_blob_with_sha512_digest_is_kept(content: Content) -> None:
    digest = Digest.of(DATA, "sha512")
    view = content.open(digest, stored(content, digest=digest).path, len(DATA))
    assert await sent(view, Span(0, len(DATA), False)) == DATA
    view.close()


async def test_empty_blob_is_kept(content: Content) -> None:
    view = content.open(Digest.of(b""), stored(content, b"").path, 0)
    assert view.size == 0
    view.close()


async def test_a_received_upload_becomes_a_blob(content: Content) -> None:
    files = UploadFiles(content.root)
    files.begin("a" * 32)
    upload = files.open("a" * 32, "sha256")
    upload.append([DATA])
    location = content.commit(Received(upload.digest("sha256"), upload))
    upload.close()
    view = content.open(DIGEST, location.path, len(DATA))
    assert await sent(view, Span(0, len(DATA), False)) == DATA
    view.close()
    assert not files.drop("a" * 32)


async def test_two_commits_of_a_digest_are_two_generations(content: Content) -> None:
    first, second = stored(content), stored(content)
    assert first.generation != second.generation
    assert first.path != second.path
    for location in (first, second):
        assert location.generation > 0
        await proved(content, DIGEST, location.path, len(DATA))


async def test_removing_a_generation_leaves_the_other(content: Content) -> None:
    first, second = stored(content), stored(content)
    assert content.remove(first.path)
    with pytest.raises(BlobMissing):
        await proved(content, DIGEST, first.path, len(DATA))
    await proved(content, DIGEST, second.path, len(DATA))


async def test_removing_what_is_not_there_says_so(content: Content) -> None:
    location = stored(content)
    assert content.remove(location.path)
    assert not content.remove(location.path)


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
async def test_blob_of_another_size_than_its_row_says_is_missing(content: Content, size: int) -> None:
    location = stored(content)
    with pytest.raises(BlobMissing):
        await proved(content, DIGEST, location.path, size)


async def test_location_of_another_digest_is_refused(content: Content) -> None:
    location = stored(content)
    with pytest.raises(BlobMissing):
        content.open(Digest.of(b"another"), location.path, len(DATA))


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/etc/passwd",
        "../../../../etc/passwd",
        "blobs/sha256/../../secret",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.0",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.07",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.7\n",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.7\0",
        f"blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}.\u0667",
        f"blobs/sha256/zz/{DIGEST.hex}.7",
        f"blobs/md5/{DIGEST.hex[:2]}/{DIGEST.hex}.7",
        f"partial/sha256-{DIGEST.hex}.part",
    ],
)
async def test_location_that_the_store_would_not_give_is_no_path(content: Content, location: str) -> None:
    with pytest.raises(BlobMissing):
        content.open(DIGEST, location, len(DATA))
    assert not content.remove(location)


async def test_unfinished_blob_is_not_opened(content: Content) -> None:
    location = stored(content)
    content.remove(location.path)
    partial = content.partial(DIGEST, len(DATA))
    partial.write(0, [DATA])
    partial.checkpoint([(0, len(DATA))])
    with pytest.raises(BlobMissing):
        await proved(content, DIGEST, location.path, len(DATA))
    partial.close()


async def test_partial_is_found_again_with_what_was_checkpointed(content: Content) -> None:
    partial = content.partial(DIGEST, len(DATA))
    partial.write(10, [DATA[10:50]])
    partial.checkpoint([(10, 30)])
    partial.close()
    again = content.partial(DIGEST, len(DATA))
    assert list(again.intervals) == [(10, 30)]
    assert again.read(10, 20) == DATA[10:30]
    again.close()


async def test_partial_of_another_size_starts_empty(content: Content) -> None:
    partial = content.partial(DIGEST, len(DATA))
    partial.write(0, [DATA])
    partial.checkpoint([(0, len(DATA))])
    partial.close()
    again = content.partial(DIGEST, len(DATA) - 1)
    assert list(again.intervals) == []
    again.close()


async def test_discarded_partial_starts_empty(content: Content) -> None:
    partial = content.partial(DIGEST, len(DATA))
    partial.write(0, [DATA])
    partial.checkpoint([(0, len(DATA))])
    partial.discard()
    again = content.partial(DIGEST, len(DATA))
    assert list(again.intervals) == []
    partial.close()
    again.close()


async def test_descriptor_of_a_committed_partial_stays_readable(content: Content) -> None:
    partial = content.partial(DIGEST, len(DATA))
    partial.write(0, [DATA])
    content.commit(partial)
    assert os.pread(partial.fileno(), len(DATA), 0) == DATA
    assert partial.read(5, 7) == DATA[5:12]
    partial.close()


async def test_committed_digest_can_be_filled_again(content: Content) -> None:
    first = content.partial(DIGEST, len(DATA))
    first.write(0, [DATA])
    content.commit(first)
    second = content.partial(DIGEST, len(DATA))
    assert list(second.intervals) == []
    first.close()
    with pytest.raises(ValueError, match="open"):  # the first one's end does not free the second
        content.partial(DIGEST, len(DATA))
    second.close()


async def test_capacity_says_free_and_total(content: Content) -> None:
    free, total = content.capacity()
    assert 0 < free <= total


async def test_cold_bytes_are_the_same_bytes(content: Content) -> None:
    location = stored(content).path
    assert bytes(content.read_cold(location, len(DATA), 100, 228)) == DATA[100:228]


async def test_cold_bytes_of_another_size_are_damaged(content: Content) -> None:
    location = stored(content).path
    with pytest.raises(BlobDamaged):
        content.read_cold(location, len(DATA) + 1, 0, 5)


async def test_cold_bytes_of_what_is_not_there_are_missing(content: Content) -> None:
    location = stored(content).path
    content.remove(location)
    with pytest.raises(BlobMissing) as missing:
        content.read_cold(location, len(DATA), 0, 5)
    assert missing.value.found == "missing"


async def test_what_is_set_aside_is_removed_by_its_location(content: Content) -> None:
    location = stored(content).path
    content.set_aside(location)
    assert content.remove(location)
    assert not content.remove(location)


async def test_a_store_that_works_is_ready(content: Content) -> None:
    content.check()


async def test_what_is_there_is_confirmed(content: Content) -> None:
    location = stored(content).path
    content.confirm(DIGEST, location, len(DATA))
    for digest, size in ((DIGEST, len(DATA) + 1), (Digest.of(b"another"), len(DATA))):
        with pytest.raises(BlobMissing):
            content.confirm(digest, location, size)
    content.remove(location)
    with pytest.raises(BlobMissing):
        content.confirm(DIGEST, location, len(DATA))


async def test_files_are_listed_once_they_are_old(content: Content) -> None:
    location, now = stored(content).path, time.time()
    assert list(content.files(60, now)) == []
    assert list(content.files(60, now + 120)) == [(DIGEST, location)]
