"""What a store of blobs does for those above it: a folder (disk.py), or a bucket (objects.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from cacheproxy.core.blob import BlobView
from cacheproxy.core.digest import Digest
from cacheproxy.store.disk import Location, Unfinished
from cacheproxy.store.partial import Partial
from cacheproxy.store.proven import Proven
from cacheproxy.store.sessions import Uploads

UNLIMITED = 1 << 62
"""Bytes of a store that has no end, as a bucket; a share of it is none either."""


class Content(Protocol):
    """Everything but `open` and `capacity` blocks, and belongs into a thread."""

    @property
    def root(self) -> Path:
        """The folder, on this node, of what is still arriving."""
        ...

    @property
    def uploads(self) -> Uploads:
        """What clients are sending."""
        ...

    def open(self, digest: Digest, location: str, size: int) -> BlobView:
        """A view of a stored blob, without waiting.

        Raises BlobMissing when the bytes are known not to be there. A store that has to ask for them says it
        later: `available` of the view raises BlobMissing, or StoreUnreachable.
        """
        ...

    def partial(self, digest: Digest, size: int) -> Partial:
        """The file of a blob that is still arriving. Raises OSError; ValueError when it is open already."""
        ...

    def commit(self, proven: Proven) -> Location:
        """Make a proven file a stored blob, durably; its descriptor stays readable. Raises OSError."""
        ...

    def remove(self, location: str) -> bool:
        """One generation of a blob, or a chunk of an upload; False when it was not there. Raises OSError."""
        ...

    def read_cold(self, location: str, size: int, start: int, stop: int) -> bytes | memoryview:
        """The bytes [start, stop) of a stored blob as the medium has them, without displacing what is read
        often. Raises BlobMissing, BlobDamaged, OSError."""
        ...

    def check(self) -> None:
        """That bytes can be had from it and left there, as far as a cheap question tells. Raises OSError."""
        ...

    def confirm(self, digest: Digest, location: str, size: int) -> None:
        """That a stored blob's bytes are there, and so many. Raises BlobMissing, BlobDamaged, OSError."""
        ...

    def files(self, older_than: float, now: float) -> Iterator[tuple[Digest, str]]:
        """(digest, location) of what was stored more than `older_than` seconds ago. Raises OSError."""
        ...

    def set_aside(self, location: str) -> None:
        """Where no row names it any more: keep it from being taken for a blob, until `remove`. Once or more
        often. Raises OSError."""
        ...

    def capacity(self) -> tuple[int, int]:
        """(free to us, total) bytes; UNLIMITED, both of them, where there is no end."""
        ...

    def partials(self) -> Iterator[Unfinished]: ...

    def reap(self, older_than: float, now: float) -> list[Digest]:
        """Remove what has been arriving, untouched, for more than so many seconds; say what."""
        ...
