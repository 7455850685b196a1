from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore

from cacheproxy.store import bucket as bucket_module
from cacheproxy.store.bucket import PART, Bucket, Reading, connect
from cacheproxy.store.errors import StoreUnreachable

REFUSED = """The operation lacked the necessary privileges to complete for path x: Error performing PUT \
http://127.0.0.1:1/b/x?X-Amz-Signature=abc in 1ms - Server returned non-2xx status code: 403 Forbidden: <?>
<Error><Code>SignatureDoesNotMatch</Code><Message>secret things</Message></Error>

Debug source:
PermissionDenied { many lines }
"""


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), "memory://test")


def test_object_is_read_back_in_pieces(bucket: Bucket) -> None:
    bucket.put("a/b", 10, iter([b"01234", b"56789"]))
    piece = bucket.get("a/b", 3, 7)
    assert piece is not None
    assert (bytes(piece.data), piece.total) == (b"3456", 10)


def test_large_object_goes_up_in_parts(bucket: Bucket) -> None:
    size = 2 * PART + 5
    bucket.put("large", size, (bytes([n]) * min(PART, size - n * PART) for n in range(3)))
    assert bucket.size("large") == size
    piece = bucket.get("large", 2 * PART - 1, size)
    assert piece is not None
    assert bytes(piece.data) == b"\x01" + b"\x02" * 5


def test_empty_object_is_kept(bucket: Bucket) -> None:
    bucket.put("empty", 0, iter(()))
    assert bucket.size("empty") == 0


def test_what_is_not_there_is_none(bucket: Bucket) -> None:
    assert bucket.get("no", 0, 1) is None
    assert bucket.size("no") is None
    bucket.delete("no")


def test_missing_bucket_is_no_missing_object(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("Object at location x not found: <Code>NoSuchBucket</Code>")

    monkeypatch.setattr(obstore, "get", missing)
    monkeypatch.setattr(obstore, "head", missing)
    for ask in (lambda: bucket.get("x", 0, 1), lambda: bucket.size("x")):
        with pytest.raises(StoreUnreachable, match="no such bucket"):
            ask()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionDeniedError(REFUSED), "403 Forbidden SignatureDoesNotMatch"),
        (
            GenericError("Generic S3 error: HTTP error: error sending request\n\nDebug..."),
            "error sending",
        ),
        (GenericError("at http://x/y?X-Amz-Signature=abc\nmore"), r"at http://x/y\?\.\.\."),
        (
            GenericError(
                "PUT http://h/k in 369.5ms, after 3 retries, max_retries: 3, retry_timeout: 20s  - HTTP"
            ),
            "PUT http://h/k - HTTP",
        ),
        (GenericError(""), "no reason"),
    ],
)
def test_an_error_is_one_short_line_without_secrets(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(obstore, "put", fails)
    with pytest.raises(StoreUnreachable, match=said) as caught:
        bucket.put("x", 1, iter([b"1"]))
    text = str(caught.value)
    assert "\n" not in text
    assert "abc" not in text
    assert "secret things" not in text
    assert text.startswith("memory://test did not take x: ")


def test_failure_of_the_source_is_the_uploads(bucket: Bucket) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(PART)
        raise OSError("the disk")

    with pytest.raises(StoreUnreachable):
        bucket.put("large", 2 * PART, chunks())
    assert bucket.size("large") is None


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(StoreUnreachable, match="s3://bucket/p cannot be used"):
        connect("s3", "bucket", "p", {"no_such_key": "x"}, plain=False)


def test_get_gives_its_bytes_as_they_come(bucket: Bucket) -> None:
    bucket.put("a/b", 10, iter([b"0123456789"]))
    reading = bucket.open("a/b", 3, 7)
    assert reading is not None
    assert (reading.read(), reading.total) == (b"3456", 10)


def test_get_of_what_is_not_there_is_none(bucket: Bucket) -> None:
    assert bucket.open("no", 0, 1) is None


def test_get_that_ends_early_fails(bucket: Bucket) -> None:
    bucket.put("short", 10, iter([b"0123456789"]))
    reading = bucket.open("short", 5, 12)
    assert reading is not None
    assert reading.read() == b"56789"
    with pytest.raises(StoreUnreachable, match="did not give short: it sent more or fewer"):
        reading.read()


HALF = 512 << 10


@contextmanager
def half_answer(rest_after: float) -> Iterator[str]:
    """The endpoint of a store that sends half of 1 MiB, and the rest so many seconds later."""
    size = 2 * HALF
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Length: {size}\r\n"
        f"Content-Range: bytes 0-{size - 1}/{size}\r\n"
        'Last-Modified: Tue, 24 Nov 2026 14:00:00 GMT\r\nETag: "x"\r\n\r\n'
    )
    done = threading.Event()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(head.encode() + bytes(HALF))
            done.wait(rest_after)
            with suppress(OSError):
                connection.sendall(bytes(HALF))
            done.wait(5)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        thread.join()


def half_read(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Reading:
    monkeypatch.setattr(bucket_module, "QUIET_SECONDS", 0.4)
    monkeypatch.setattr(bucket_module, "RETRIES", 0)
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    settings = {"endpoint": endpoint, "region": "us-east-1", **keys}
    reading = connect("s3", "bucket", "p", settings, plain=True).open("x", 0, 2 * HALF)
    assert reading is not None
    assert reading.read()
    return reading


def to_the_end(reading: Reading) -> None:
    while reading._left:
        reading.read()


def test_store_that_falls_silent_in_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with half_answer(rest_after=5) as endpoint:
        reading = half_read(endpoint, monkeypatch)
        began = time.monotonic()
        with pytest.raises(StoreUnreachable):
            to_the_end(reading)
        assert time.monotonic() - began < 3


def test_reader_that_pauses_is_not_taken_for_a_silent_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with half_answer(rest_after=0) as endpoint:
        reading = half_read(endpoint, monkeypatch)
        time.sleep(0.6)
        to_the_end(reading)
