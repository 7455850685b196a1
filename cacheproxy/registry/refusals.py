"""What clients hear of pushes that are not taken."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog

from cacheproxy.core.errors import OCIError
from cacheproxy.store.durable import OUT_OF_SPACE
from cacheproxy.store.errors import StoreUnreachable
from cacheproxy.store.pushing import NoRepository, OverQuota
from cacheproxy.store.sessions import UploadBusy, UploadGone

log = structlog.get_logger()

T = TypeVar("T")


class OutOfOrder(OCIError):
    """Bytes that do not begin where the last ones ended: 416."""

    def __init__(self, received: int) -> None:
        super().__init__(
            "RANGE_INVALID", f"the upload has {received} bytes: go on from there (see the Range header)"
        )
        self.received = received


async def in_repository(repository: str, work: Awaitable[T]) -> T:
    try:
        return await work
    except NoRepository:
        raise OCIError("NAME_UNKNOWN", f"there is no repository {repository} here (any more)") from None


async def within_quota(repository: str, work: Awaitable[T]) -> T:
    try:
        return await work
    except OverQuota:
        raise over_quota(repository) from None


class Ended(OCIError):
    """There is no such session, for whoever asks: 404."""

    def __init__(self) -> None:
        super().__init__(
            "BLOB_UPLOAD_UNKNOWN", "no such upload here: it has ended, or is another's; begin it again"
        )


def over_quota(repository: str) -> OCIError:
    return OCIError(
        "TOOMANYREQUESTS",
        f"{repository} has reached its quota of bytes: delete images, or have it raised",
    )


@contextmanager
def reported() -> Iterator[None]:
    """What the store says of a session, as the client hears it."""
    try:
        yield
    except UploadGone:
        raise Ended from None
    except UploadBusy:
        said = "another request is sending bytes of this upload: wait for it, or ask how far it is"
        raise OCIError("BLOB_UPLOAD_INVALID", said, status=409) from None
    except StoreUnreachable as error:
        log.warning("store of blobs does not take what is pushed", error=str(error))
        raise not_now("the store of blobs does not answer; try again", "5") from error
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        said = "there is no room for what is pushed; delete images, or wait until somebody has made room"
        raise not_now(said, "60") from error


def not_now(said: str, seconds: str) -> OCIError:
    return OCIError("UNAVAILABLE", said, headers=(("Retry-After", seconds),))
