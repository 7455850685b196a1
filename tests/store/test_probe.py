from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import obstore
import pytest
from obstore.store import MemoryStore

from cacheproxy.store.bucket import Bucket, Piece
from cacheproxy.store.errors import StoreUnreachable
from cacheproxy.store.probe import CONTENT, LEFT, prove, prove_list
from tests.azure import Azurite
from tests.google import Google
from tests.seaweed import Seaweed


class ReadOnly(Bucket):
    def put(self, key: str, size: int, chunks: Iterator[bytes]) -> None:
        raise StoreUnreachable(f"{self.name} did not take {key}: 403 Forbidden")


class Forgetful(Bucket):
    def get(self, key: str, start: int, stop: int) -> Piece | None:
        return None


class Whole(Bucket):
    """Takes no notice of ranges."""

    def get(self, key: str, start: int, stop: int) -> Piece | None:
        return super().get(key, 0, len(CONTENT))


class Keeping(Bucket):
    def delete(self, key: str) -> None:
        pass


class Undeletable(Bucket):
    def delete(self, key: str) -> None:
        raise StoreUnreachable(f"{self.name} did not delete {key}: 403 Forbidden")


def test_what_a_kill_left_of_an_earlier_look_goes_once_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(MemoryStore(), "memory://test")
    bucket.put("probe/left", 4, iter([b"left"]))
    bucket.put("probe-of-others", 4, iter([b"mine"]))
    prove(bucket, presigned=False)
    assert bucket.size("probe/left") == 4
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEFT + 1)
    prove(bucket, presigned=False)
    assert (bucket.size("probe/left"), bucket.size("probe-of-others")) == (None, 4)


class Unlistable(Bucket):
    def list(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        raise StoreUnreachable(f"{self.name} did not list {prefix}: 403 Forbidden")


def test_bucket_that_gives_no_list_is_good_enough_for_a_start() -> None:
    prove(Unlistable(MemoryStore(), "memory://test"), presigned=False)


def test_bucket_that_works_is_left_as_it_was() -> None:
    store = MemoryStore()
    prove(Bucket(store, "memory://test"), presigned=False)
    assert [entry for page in obstore.list(store) for entry in page] == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (ReadOnly, "did not take probe/.*403"),
        (Forgetful, "does not have it"),
        (Whole, "gives other bytes than those asked for"),
        (Keeping, "says that it deleted"),
        (Undeletable, "did not delete probe/.*403"),
    ],
)
def test_what_a_bucket_cannot_do_is_said(kind: type[Bucket], said: str) -> None:
    with pytest.raises(StoreUnreachable, match=f"^memory://test .*{said}") as caught:
        prove(kind(MemoryStore(), "memory://test"), presigned=False)
    assert "\n" not in str(caught.value)


def test_bucket_that_gives_no_addresses_is_no_place_to_redirect_to() -> None:
    with pytest.raises(StoreUnreachable, match="no presigned address"):
        prove(Bucket(MemoryStore(), "memory://test"), presigned=True)


class Signing(Bucket):
    """Gives an address of a server that answers anything with a 403."""

    url = ""

    def address(self, key: str, seconds: float) -> str:
        return f"{self.url}/{key}?X-Amz-Signature=secret"


def test_address_that_is_refused_is_said_without_its_signature() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_refuse, args=(server,))
        thread.start()
        bucket = Signing(MemoryStore(), "memory://test")
        bucket.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StoreUnreachable, match=r"redirected to it.* 403") as caught:
            prove(bucket, presigned=True)
        thread.join()
    assert "secret" not in str(caught.value)


def _refuse(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_real_store_can_do_all_of_it(object_server: Seaweed | Azurite | Google) -> None:
    bucket = object_server.connect()
    prove(bucket, presigned=True)
    prove_list(bucket)


class Unlisted(Bucket):
    def list(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        return iter(())


def test_lists_are_proven_and_nothing_is_left() -> None:
    store = MemoryStore()
    prove_list(Bucket(store, "s3://b"))
    with pytest.raises(StoreUnreachable, match="does not list what it has"):
        prove_list(Unlisted(store, "s3://b"))
    assert not [entry for page in obstore.list(store) for entry in page]
