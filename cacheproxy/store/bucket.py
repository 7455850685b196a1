"""A bucket of S3, Google Cloud Storage or Azure, by blocking calls of which each one ends.

obstore does the protocols. Its errors stop here: they name whole requests, and are many lines long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from cacheproxy.store.errors import StoreUnreachable

CONNECT_SECONDS = 5.0
QUIET_SECONDS = 30.0
"""Without a byte from the store, from the start of a request on: an upload's part of 8 MiB has to be there
and be answered by then, which is 0.3 MB/s."""
REQUEST_SECONDS = 300.0
"""One request from its start to its last byte, whoever is slow: nothing keeps a thread for longer."""
RETRIES = 3
RETRY_SECONDS = 20.0
"""A request that failed is made again so often, and begun again for so long: the caller has another way."""

PART = 8 << 20
"""Bytes of one part of an upload. S3 takes 10 000 parts, which is 80 GB."""
PARTS_AT_ONCE = 3
"""Bounds what an upload takes of memory; more were not faster on SeaweedFS."""

CHUNK = 256 << 10
"""Bytes of a GET that are waited for before they are handed on. obstore's own buffer has about so many; for
more it would copy them once again."""

COPIED = 5 << 30
"""Bytes of an object that S3 copies in one request, at most."""

PAGE = 1000
"""Objects of one answer to a listing: what S3 gives at most."""

ObjectStore = AzureStore | GCSStore | S3Store
STORES: Mapping[str, type[ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}

_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_STATUS = re.compile(r"status code: ([0-9]{3} [A-Za-z ]{1,40})")
_TRIES = re.compile(r" in [0-9.]+[a-zµ]+(, after [^-]*(?= -))?")
"""How long it took, and the settings that we gave it."""
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")


class Piece(NamedTuple):
    data: memoryview
    total: int
    """Bytes of the whole object."""


class Reading:
    """One GET under way. To drop it is to end it."""

    def __init__(self, result: obstore.GetResult, length: int, what: str) -> None:
        self.total = result.meta["size"]
        """Bytes of the whole object."""
        self._chunks = result.stream(CHUNK)
        self._left = length
        self._what = what

    def read(self) -> bytes:
        """The next bytes of those that were asked for, at least one. Raises StoreUnreachable."""
        with _reported(self._what):
            chunk = next(self._chunks, b"")
            self._left -= len(chunk)
            if not chunk or self._left < 0:
                raise StoreUnreachable("it sent more or fewer bytes than it was asked for")
            return chunk


class Bucket:
    """Keys are below the prefix. All methods block, and raise StoreUnreachable."""

    def __init__(self, store: Any, name: str) -> None:
        self._store = store
        self.name = name
        """As the configuration writes it, for messages."""

    def put(self, key: str, size: int, chunks: Iterator[bytes]) -> None:
        """Write an object of `size` bytes, all of it or nothing."""
        with _reported(f"{self.name} did not take {key}"):
            if size <= PART:
                obstore.put(self._store, key, b"".join(chunks), use_multipart=False)
            else:
                obstore.put(self._store, key, chunks, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    def copies(self, size: int) -> bool:
        """Whether `copy` is for objects of so many bytes. Azure says that it was done before it is."""
        return size <= COPIED and not isinstance(self._store, AzureStore)

    def copy(self, key: str, target: str) -> bool:
        """An object once more, within the store. False: there is no such object."""
        with _reported(f"{self.name} did not copy {key}"):
            try:
                obstore.copy(self._store, key, target)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return False
            return True

    def get(self, key: str, start: int, stop: int) -> Piece | None:
        """The bytes [start, stop) of an object, start < stop; None: there is no such object."""
        with _reported(f"{self.name} did not give {key}"):
            try:
                result = obstore.get(self._store, key, options={"range": (start, stop)})
                return Piece(memoryview(result.bytes()), result.meta["size"])
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return None

    def open(self, key: str, start: int, stop: int) -> Reading | None:
        """A GET of the bytes [start, stop) of an object, start < stop; None: there is no such object."""
        what = f"{self.name} did not give {key}"
        with _reported(what):
            try:
                result = obstore.get(self._store, key, options={"range": (start, stop)})
                return Reading(result, stop - start, what)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return None

    def size(self, key: str) -> int | None:
        with _reported(f"{self.name} did not say whether it has {key}"):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return None

    def list(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """Key, size and time (seconds since the epoch) of all below whole segments of a key, by pages."""
        with _reported(f"{self.name} did not list {prefix}"):
            for page in obstore.list(self._store, prefix, chunk_size=PAGE):
                for entry in page:
                    yield entry["path"], entry["size"], entry["last_modified"].timestamp()

    def delete(self, key: str) -> None:
        """Whether it was there or not."""
        with _reported(f"{self.name} did not delete {key}"):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)

    def address(self, key: str, seconds: float) -> str:
        """Where anybody may GET the object for so long."""
        with _reported(f"{self.name} gives no presigned address"):
            return obstore.sign(self._store, "GET", key, timedelta(seconds=seconds))


def connect(scheme: str, bucket: str, prefix: str, settings: Mapping[str, Any], *, plain: bool) -> Bucket:
    """Nothing is asked yet. `settings` are obstore's own. Raises StoreUnreachable for those it refuses."""
    name = f"{scheme}://{bucket}/{prefix}".rstrip("/")
    with _reported(f"{name} cannot be used"):
        store = STORES[scheme](
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": plain,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=QUIET_SECONDS),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            **settings,
        )
        return Bucket(store, name)


def _refuse_missing_bucket(error: FileNotFoundError) -> None:
    """Raises StoreUnreachable: a missing bucket says nothing about its blobs."""
    if any(sign in str(error) for sign in _NO_BUCKET):
        raise StoreUnreachable("there is no such bucket") from error


@contextmanager
def _reported(what: str) -> Iterator[None]:
    try:
        yield
    except StoreUnreachable as error:
        raise StoreUnreachable(f"{what}: {error}") from error
    except (BaseError, ValueError, OSError) as error:
        raise StoreUnreachable(f"{what}: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    """What the store said, in few words: its own code and the status where it gave them."""
    said = [found[1] for pattern in (_STATUS, _CODE) if (found := pattern.search(text)) is not None]
    if said:
        return " ".join(said)
    line = _TRIES.sub("", text.strip().partition("\n")[0])
    return re.sub(r"\?\S*", "?...", line)[:300] or "it gave no reason"
