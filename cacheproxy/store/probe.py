"""What a bucket must be able to do, tried at the start on an object of our own."""

from __future__ import annotations

import secrets
import ssl
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from cacheproxy.store.bucket import CONNECT_SECONDS, Bucket
from cacheproxy.store.errors import StoreUnreachable

CONTENT = b"cacheproxy looks whether this store keeps what it is given\n"
START, STOP = 11, 16
LEFT = 86400.0
"""Seconds after which an object of ours is what a kill has left: another node may be looking right now."""


def prove(bucket: Bucket, *, presigned: bool) -> None:
    """Blocking. Write, read, read a range, ask for the size, delete; and GET by a presigned address.

    Raises StoreUnreachable with the first thing that the bucket cannot do.
    """
    with suppress(StoreUnreachable):  # lists are not asked for here
        _sweep(bucket)
    key = f"probe/{secrets.token_hex(16)}"
    try:
        bucket.put(key, len(CONTENT), iter([CONTENT]))
        _prove_reading(bucket, key)
        if presigned:
            _prove_address(bucket, bucket.address(key, CONNECT_SECONDS + 60))
        bucket.delete(key)
    except StoreUnreachable:
        with suppress(StoreUnreachable):
            bucket.delete(key)
        raise
    if bucket.size(key) is not None:
        raise StoreUnreachable(f"{bucket.name} says that it deleted {key}, and still has it")


def prove_list(bucket: Bucket) -> None:
    """Blocking. An object of our own is in the list of its folder. Raises StoreUnreachable."""
    folder = f"probe/{secrets.token_hex(16)}"
    key = f"{folder}/listed"
    bucket.put(key, len(CONTENT), iter([CONTENT]))
    try:
        if not any(found.endswith(key) for found, _, _ in bucket.list(folder)):
            raise StoreUnreachable(f"{bucket.name} does not list what it has")
    finally:
        with suppress(StoreUnreachable):
            bucket.delete(key)


def _sweep(bucket: Bucket) -> None:
    """What earlier looks have left goes."""
    before = time.time() - LEFT
    for key in [key for key, _, written in bucket.list("probe") if written < before]:
        bucket.delete(key)


def _prove_reading(bucket: Bucket, key: str) -> None:
    for start, stop in ((0, len(CONTENT)), (START, STOP)):
        piece = bucket.get(key, start, stop)
        if piece is None:
            raise StoreUnreachable(f"{bucket.name} took {key}, and does not have it")
        if bytes(piece.data) != CONTENT[start:stop] or piece.total != len(CONTENT):
            raise StoreUnreachable(f"{bucket.name} gives other bytes than those asked for ({start}-{stop})")
    if bucket.size(key) != len(CONTENT):
        raise StoreUnreachable(f"{bucket.name} does not know how long {key} is")


def _prove_address(bucket: Bucket, url: str) -> None:
    """The address itself is a secret for a minute, and in no message."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc, timeout=CONNECT_SECONDS)
    try:
        ranged = {"Range": f"bytes={START}-{STOP - 1}"}
        connection.request("GET", f"{parts.path}?{parts.query}", headers=ranged)
        answer = connection.getresponse()
        status, data = answer.status, answer.read(len(CONTENT))
    except (OSError, HTTPException, ssl.SSLError) as error:
        raise StoreUnreachable(f"{bucket.name} has presigned addresses that do not answer: {error}") from None
    finally:
        connection.close()
    if status != 206 or data != CONTENT[START:STOP]:
        what = f"a ranged GET of a presigned address answers {status}"
        raise StoreUnreachable(f"{bucket.name} cannot have clients redirected to it: {what}")
