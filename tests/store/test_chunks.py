"""What was sent of a blob, as objects of a bucket."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from cacheproxy.core.digest import Digest
from cacheproxy.store.bucket import Bucket, Piece
from cacheproxy.store.chunks import Joined, ObjectUpload, ObjectUploads, Sole, session_of
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.sessions import Chunk, Sent, UploadGone
from cacheproxy.store.uploads import FOLDER, Received, UploadFile, UploadFiles

SESSION = "a" * 32
FIRST, SECOND = b"the first bytes, ", b"and those after them"
WHOLE = FIRST + SECOND


class Counted(Bucket):
    """Knows how often its bytes were asked for."""

    reads = 0

    def get(self, key: str, start: int, stop: int) -> Piece | None:
        self.reads += 1
        return super().get(key, start, stop)


@pytest.fixture
def bucket() -> Counted:
    return Counted(MemoryStore(), "memory://test")


@pytest.fixture
def uploads(bucket: Counted, tmp_path: Path) -> ObjectUploads:
    return node(bucket, tmp_path)


def node(bucket: Bucket, folder: Path) -> ObjectUploads:
    """With a folder of its own."""
    return ObjectUploads(bucket, UploadFiles(folder))


def sent(*chunks: Chunk) -> Sent:
    return Sent(sum(chunk.size for chunk in chunks), chunks[-1].key if chunks else "", chunks)


def send(uploads: ObjectUploads, data: bytes, *before: Chunk) -> Chunk:
    upload = uploads.open(SESSION, "sha256", sent(*before))
    try:
        upload.append([data])
        chunk = upload.send()
    finally:
        upload.close()
    assert chunk is not None
    return chunk


def opened(uploads: ObjectUploads, *chunks: Chunk) -> ObjectUpload:
    return uploads.open(SESSION, "sha256", sent(*chunks))


def keys(bucket: Bucket) -> list[str]:
    return [key for key, _, _ in bucket.list(FOLDER)]


def test_each_request_is_an_object_of_its_own(uploads: ObjectUploads, bucket: Bucket) -> None:
    first = send(uploads, FIRST)
    second = send(uploads, SECOND, first)
    assert (first.start, first.size, second.start, second.size) == (0, len(FIRST), len(FIRST), len(SECOND))
    assert keys(bucket) == [first.key, second.key]
    assert [session_of(key) for key in keys(bucket)] == [SESSION, SESSION]


def test_the_same_bytes_sent_twice_are_two_objects(uploads: ObjectUploads, bucket: Bucket) -> None:
    assert send(uploads, FIRST).key != send(uploads, FIRST).key
    assert len(keys(bucket)) == 2


def test_a_request_without_bytes_is_no_object(uploads: ObjectUploads, bucket: Bucket) -> None:
    upload = opened(uploads)
    assert upload.send() is None
    upload.close()
    assert keys(bucket) == []


def test_no_file_is_left_on_the_node(uploads: ObjectUploads, tmp_path: Path) -> None:
    send(uploads, FIRST)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_the_node_that_received_all_of_it_knows_the_digest(uploads: ObjectUploads, bucket: Counted) -> None:
    first = send(uploads, FIRST)
    upload = opened(uploads, first, send(uploads, SECOND, first))
    assert upload.digest("sha256") == Digest.of(WHOLE)
    assert bucket.reads == 0
    upload.close()


def test_another_node_reads_it_again(uploads: ObjectUploads, bucket: Counted, tmp_path: Path) -> None:
    first = send(uploads, FIRST)
    (tmp_path / "other").mkdir()
    other = node(bucket, tmp_path / "other")
    upload = opened(other, first, send(other, SECOND, first))
    assert upload.digest("sha256") == Digest.of(WHOLE)
    assert bucket.reads == 2
    upload.close()


def test_bytes_that_came_with_the_end_are_counted(uploads: ObjectUploads) -> None:
    upload = opened(uploads, send(uploads, FIRST))
    upload.append([SECOND])
    assert upload.size == len(WHOLE)
    for algorithm in ("sha256", "sha512"):
        assert upload.digest(algorithm) == Digest.of(WHOLE, algorithm)
    upload.close()


def test_a_request_that_came_second_does_not_spoil_the_hash(uploads: ObjectUploads) -> None:
    first = send(uploads, FIRST)
    send(uploads, b"not counted", first)
    upload = opened(uploads, first, send(uploads, SECOND, first))
    assert upload.digest("sha256") == Digest.of(WHOLE)
    upload.close()


def test_what_is_taken_back_is_not_in_the_digest(uploads: ObjectUploads) -> None:
    upload = opened(uploads, send(uploads, FIRST))
    upload.append([SECOND])
    upload.cut(len(FIRST))
    assert upload.size == len(FIRST)
    assert upload.digest("sha256") == Digest.of(FIRST)
    upload.close()


def test_what_it_is_made_of(uploads: ObjectUploads) -> None:
    digest = Digest.of(WHOLE)
    first = send(uploads, FIRST)
    second = send(uploads, SECOND, first)
    for chunks, kind in (((), Received), ((first,), Sole), ((first, second), Joined)):
        upload = opened(uploads, *chunks)
        assert type(upload.proven(digest)) is kind
        upload.close()


def test_chunks_are_read_as_if_they_were_one(uploads: ObjectUploads) -> None:
    first = send(uploads, FIRST)
    upload = opened(uploads, first, send(uploads, SECOND, first))
    upload.append([b"!"])
    proven, found = upload.proven(Digest.of(WHOLE + b"!")), b""
    while len(found) < proven.size:
        found += proven.read(len(found), 7)
    assert found == WHOLE + b"!"
    upload.close()


@pytest.mark.parametrize("left", [None, b"short"])
def test_a_chunk_that_is_gone_ends_the_session(
    uploads: ObjectUploads, bucket: Bucket, tmp_path: Path, left: bytes | None
) -> None:
    first = send(uploads, FIRST)
    bucket.delete(first.key)
    if left is not None:
        bucket.put(first.key, len(left), iter([left]))
    upload = opened(uploads, first)
    with pytest.raises(UploadGone):
        upload.digest("sha512")
    upload.close()


def test_a_file_that_changed_on_its_way_is_not_kept(
    uploads: ObjectUploads, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UploadFile, "read", lambda self, offset, count: b"x" * (self.size - offset))
    with pytest.raises(StoreSuspect):
        send(uploads, FIRST)
    assert keys(bucket) == []


def test_chunks_are_listed_by_their_age(uploads: ObjectUploads, bucket: Bucket) -> None:
    chunk = send(uploads, FIRST)
    bucket.put(f"{FOLDER}/a-note", 1, iter([b"!"]))
    ((_, _, written),) = [entry for entry in bucket.list(FOLDER) if entry[0] == chunk.key]
    assert list(uploads.files(60, written + 61)) == [(SESSION, chunk.key)]
    assert list(uploads.files(60, written + 59)) == []


def test_only_chunks_are_removed(uploads: ObjectUploads, bucket: Bucket) -> None:
    chunk = send(uploads, FIRST)
    bucket.put("blobs/other", 1, iter([b"!"]))
    assert not uploads.remove("blobs/other")
    assert uploads.remove(chunk.key)
    assert not uploads.remove(chunk.key)
    assert [entry["path"] for page in obstore.list(bucket._store) for entry in page] == ["blobs/other"]
