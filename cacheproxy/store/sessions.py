"""What a store does for blobs that are being sent to it, for as long as they are not whole.

On a disk a session is a file (uploads.py), which says itself how far it is. In a bucket it is objects
(chunks.py), and its row says so (pushing.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from cacheproxy.core.digest import Digest
from cacheproxy.store.errors import StoreError
from cacheproxy.store.proven import Proven


class UploadGone(StoreError):
    """There are no bytes of this session."""


class UploadBusy(StoreError):
    """Another request appends to it."""


class Chunk(NamedTuple):
    """The bytes of one request, as an object of the bucket."""

    key: str
    """Nobody else's: of two requests that send the same bytes of a session, each has its own."""
    start: int
    size: int


class Sent(NamedTuple):
    """What the rows have of a session; nothing, where a file says it."""

    received: int = 0
    """Bytes."""
    last: str = ""
    """The key of the last chunk: it stands for all before it, too, for chunks are only ever added."""
    chunks: tuple[Chunk, ...] = ()
    """In order; only where the bytes are asked for."""


NOTHING = Sent()


class Upload(Protocol):
    """One request's use of a session. All methods block. Closed by its user, once."""

    @property
    def size(self) -> int:
        """Bytes that were received, with those of this request."""
        ...

    def append(self, chunks: Sequence[bytes]) -> None:
        """Raises OSError: then it ends where `size` says, or the disk is not to be trusted."""
        ...

    def cut(self, size: int) -> None:
        """Take back what this request brought."""
        ...

    def digest(self, algorithm: str) -> Digest:
        """Of all that is there. Raises UploadGone, OSError."""
        ...

    def send(self) -> Chunk | None:
        """Put what this request brought where all nodes find it: to be noted in the session's row.

        None: it is there already. Raises OSError.
        """
        ...

    def proven(self, digest: Digest) -> Proven:
        """It is all of this blob, as `digest` has told."""
        ...

    def close(self) -> None: ...


class Uploads(Protocol):
    """All methods block, and raise OSError."""

    def begin(self, session: str) -> None: ...

    def open(self, session: str, algorithm: str, sent: Sent = NOTHING) -> Upload:
        """Raises UploadGone, UploadBusy."""
        ...

    def size(self, session: str, sent: Sent = NOTHING) -> int:
        """Raises UploadGone."""
        ...

    def idle(self, session: str) -> bool:
        """Whether no request is appending to it, as far as this node can tell."""
        ...

    def drop(self, session: str) -> bool:
        """What this node has of it; False when that is nothing."""
        ...

    def stale(self, older_than: float, now: float) -> Iterator[str]:
        """What this node has of sessions, and was not written to for more than so many seconds."""
        ...

    def files(self, older_than: float, now: float) -> Iterator[tuple[str, str]]:
        """(session, key) of chunks that were sent more than `older_than` seconds ago."""
        ...

    def remove(self, key: str) -> bool:
        """A chunk. False when it was not there, or is none."""
        ...
